package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// protoMagic starts every protobuf encoding of a whole object; a runtime.Unknown message follows.
var protoMagic = []byte("k8s\x00")

// Field numbers of the messages that are taken apart and put together here, from the .proto files of k8s.io/apimachinery.
const (
	unknownTypeMeta    = 1 // runtime.Unknown.typeMeta
	unknownRaw         = 2 // runtime.Unknown.raw
	typeMetaAPIVersion = 1 // runtime.TypeMeta.apiVersion
	typeMetaKind       = 2 // runtime.TypeMeta.kind

	objectMetadata  = 1 // metadata of every object and list
	listItems       = 2 // items of every list
	metaRevision    = 6 // ObjectMeta.resourceVersion
	watchEventType  = 1 // WatchEvent.type
	watchEventObj   = 2 // WatchEvent.object
	rawExtensionRaw = 1 // RawExtension.raw
)

var errNoEnvelope = errors.New("not an object in protobuf")

// IsProto says whether a value is an object in protobuf.
func IsProto(value []byte) bool { return bytes.HasPrefix(value, protoMagic) }

// Raw takes an object's message out of its envelope. It shares memory with value.
func Raw(value []byte) ([]byte, error) {
	if !IsProto(value) {
		return nil, errNoEnvelope
	}
	return field(value[len(protoMagic):], unknownRaw)
}

// field finds the last field of that number, which holds bytes.
func field(message []byte, number protowire.Number) ([]byte, error) {
	var found []byte
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, fmt.Errorf("reading a protobuf message: %w", protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(num, typ, message[n:])
		if size < 0 {
			return nil, fmt.Errorf("reading a protobuf message: %w", protowire.ParseError(size))
		}
		if num == number && typ == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(message[n:])
		}
		message = message[n+size:]
	}
	return found, nil
}

// Revision is the part of a message that sets metadata.resourceVersion when it is appended: embedded messages that occur
// more than once are merged.
func appendRevision(dst []byte, rev int64) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], rev, 10)
	dst = protowire.AppendTag(dst, objectMetadata, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(2+len(text)))
	dst = protowire.AppendTag(dst, metaRevision, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(text)))
	return append(dst, text...)
}

// maxRevision is the most bytes that appendRevision appends.
const maxRevision = 24

// Envelope starts the encoding of an object whose message has the given size: the message must follow.
func appendEnvelope(dst []byte, apiVersion, kind string, size int) []byte {
	dst = append(dst, protoMagic...)
	typeMeta := protowire.SizeTag(typeMetaAPIVersion) + protowire.SizeBytes(len(apiVersion)) +
		protowire.SizeTag(typeMetaKind) + protowire.SizeBytes(len(kind))
	dst = protowire.AppendTag(dst, unknownTypeMeta, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(typeMeta))
	dst = protowire.AppendTag(dst, typeMetaAPIVersion, protowire.BytesType)
	dst = protowire.AppendString(dst, apiVersion)
	dst = protowire.AppendTag(dst, typeMetaKind, protowire.BytesType)
	dst = protowire.AppendString(dst, kind)
	dst = protowire.AppendTag(dst, unknownRaw, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(size))
}

// AppendObject appends the encoding of a stored object in protobuf, with its revision.
func AppendObject(dst []byte, apiVersion, kind string, raw []byte, rev int64) []byte {
	var tail [maxRevision]byte
	revision := appendRevision(tail[:0], rev)
	dst = appendEnvelope(dst, apiVersion, kind, len(raw)+len(revision))
	return append(append(dst, raw...), revision...)
}

// AppendListHead appends the start of a list's encoding: its envelope and metadata. AppendItem's output for every item
// must follow, itemsSize bytes together.
func AppendListHead(dst []byte, apiVersion, kind string, meta metav1.ListMeta, itemsSize int) []byte {
	m := make([]byte, meta.Size())
	if _, err := meta.MarshalToSizedBuffer(m); err != nil {
		panic(err) // strings and numbers are always encodable
	}
	dst = appendEnvelope(dst, apiVersion, kind, protowire.SizeTag(objectMetadata)+protowire.SizeBytes(len(m))+itemsSize)
	dst = protowire.AppendTag(dst, objectMetadata, protowire.BytesType)
	return protowire.AppendBytes(dst, m)
}

// ItemSize is the number of bytes that AppendItem appends.
func ItemSize(raw []byte, rev int64) int {
	return protowire.SizeTag(listItems) + protowire.SizeBytes(len(raw)+revisionSize(rev))
}

func revisionSize(rev int64) int {
	digits := 1
	for ; rev >= 10; rev /= 10 {
		digits++
	}
	return 4 + digits
}

// AppendItem appends a stored object as an item of a list.
func AppendItem(dst, raw []byte, rev int64) []byte {
	dst = protowire.AppendTag(dst, listItems, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(raw)+revisionSize(rev)))
	return appendRevision(append(dst, raw...), rev)
}

// AppendEventHead appends the start of a watch event's frame, its length in four bytes and a WatchEvent message up to its
// object, whose encoding of the given size must follow.
func AppendEventHead(dst []byte, typ string, objectSize int) []byte {
	extension := protowire.SizeTag(rawExtensionRaw) + protowire.SizeBytes(objectSize)
	size := protowire.SizeTag(watchEventType) + protowire.SizeBytes(len(typ)) +
		protowire.SizeTag(watchEventObj) + protowire.SizeBytes(extension)
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = protowire.AppendTag(dst, watchEventType, protowire.BytesType)
	dst = protowire.AppendString(dst, typ)
	dst = protowire.AppendTag(dst, watchEventObj, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(extension))
	dst = protowire.AppendTag(dst, rawExtensionRaw, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(objectSize))
}

// RawMetadata cuts an object's message down to its metadata: the message of a PartialObjectMetadata.
func RawMetadata(raw []byte) ([]byte, error) {
	meta, err := field(raw, objectMetadata)
	if err != nil {
		return nil, err
	}
	dst := make([]byte, 0, len(meta)+8)
	dst = protowire.AppendTag(dst, objectMetadata, protowire.BytesType)
	return protowire.AppendBytes(dst, meta), nil
}
