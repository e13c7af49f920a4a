package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/store"
)

// WatchMetadata calls handle with what is known of every object of a cache and then for every change, until ctx ends or
// the watch breaks, which is the error. deleted tells that the object is gone. synced, if not nil, is called once when
// all present objects were handled.
//
// Nothing is decoded but the metadata that ownership and deletion need: name, namespace, uid, resourceVersion,
// generation, timestamps, labels, owners and finalizers. Annotations and managed fields are left out.
func WatchMetadata(ctx context.Context, c *store.Cache, handle func(meta *metav1.ObjectMeta, deleted bool), synced func()) error {
	if err := c.WaitReady(ctx); err != nil {
		return fmt.Errorf("waiting for the cache: %w", err)
	}
	w, err := c.Watch(ctx, store.WatchOptions{InitialEvents: true})
	if err != nil {
		return fmt.Errorf("watching metadata: %w", err)
	}
	defer w.Stop()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("watching metadata: %w", err)
		}
		for _, e := range events {
			switch e.Type {
			case store.Added, store.Modified, store.Deleted:
				meta, err := Metadata(e.Object)
				if err != nil {
					return err
				}
				handle(meta, e.Type == store.Deleted)
			case store.InitialEnd:
				if synced != nil {
					synced()
				}
			case store.Bookmark:
			}
		}
	}
}

// Metadata reads the metadata of a stored object as WatchMetadata describes it, without decoding the object.
func Metadata(o *store.Object) (*metav1.ObjectMeta, error) {
	meta, err := decodeMetadata(o.Value())
	if err != nil {
		return nil, fmt.Errorf("decoding the metadata of %s: %w", o.Key, err)
	}
	meta.ResourceVersion = strconv.FormatInt(o.Rev, 10)
	return meta, nil
}

// protobufPrefix marks a stored value that is a protobuf runtime.Unknown.
var protobufPrefix = []byte{'k', '8', 's', 0}

// The fields of ObjectMeta (k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto) that are left out.
const (
	annotationsField   = 12
	managedFieldsField = 17
)

func decodeMetadata(value []byte) (*metav1.ObjectMeta, error) {
	data, ok := bytes.CutPrefix(value, protobufPrefix)
	if !ok {
		var object struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
		}
		if err := json.Unmarshal(value, &object); err != nil {
			return nil, err
		}
		object.Metadata.Annotations, object.Metadata.ManagedFields = nil, nil
		return &object.Metadata, nil
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(data); err != nil {
		return nil, err
	}
	meta := new(metav1.ObjectMeta)
	// The first field of every kind is its metadata.
	err := eachField(unknown.Raw, func(number protowire.Number, _, content []byte) error {
		if number != 1 {
			return nil
		}
		lean, err := withoutBulk(content)
		if err != nil {
			return err
		}
		return meta.Unmarshal(lean)
	})
	return meta, err
}

// withoutBulk copies an encoded ObjectMeta without the fields that are left out.
func withoutBulk(meta []byte) ([]byte, error) {
	lean := make([]byte, 0, min(len(meta), 512))
	err := eachField(meta, func(number protowire.Number, whole, _ []byte) error {
		if number != annotationsField && number != managedFieldsField {
			lean = append(lean, whole...)
		}
		return nil
	})
	return lean, err
}

// eachField calls fn for every field of an encoded message, with the whole field and, if it is length-delimited, its
// content.
func eachField(message []byte, fn func(number protowire.Number, whole, content []byte) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		length := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if length < 0 {
			return protowire.ParseError(length)
		}
		var content []byte
		if kind == protowire.BytesType {
			content, _ = protowire.ConsumeBytes(message[tag:])
		}
		if err := fn(number, message[:tag+length], content); err != nil {
			return err
		}
		message = message[tag+length:]
	}
	return nil
}
