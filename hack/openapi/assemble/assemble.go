// Package assemble puts the OpenAPI documents together: schemas of the Go types, and paths of everything in the catalogue.
//
// What flows in are the generated schemas and the catalogue; what flows out are files in the form in which package
// internal/apiserver/openapi serves them.
package assemble

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/openapi"
)

// Write makes all documents of the resources and writes them to dir.
func Write(dir string, resources []*api.Resource, definitions common.GetOpenAPIDefinitions) error {
	all := containers(resources)
	names := newNamer(resources)
	var index []openapi.Document

	v2, err := swagger(all, definitions, names)
	if err != nil {
		return fmt.Errorf("v2: %w", err)
	}
	doc, err := write(dir, "v2", v2, func(data []byte) (proto.Message, error) { return openapi_v2.ParseDocument(data) })
	if err != nil {
		return fmt.Errorf("v2: %w", err)
	}
	index = append(index, doc)

	for gv, c := range all {
		v3, err := document(c, definitions, names)
		if err != nil {
			return fmt.Errorf("v3 of %s: %w", gv, err)
		}
		doc, err := write(dir, "v3"+c.root, v3, func(data []byte) (proto.Message, error) { return openapi_v3.ParseDocument(data) })
		if err != nil {
			return fmt.Errorf("v3 of %s: %w", gv, err)
		}
		index = append(index, doc)
	}
	slices.SortFunc(index, func(a, b openapi.Document) int { return strings.Compare(a.Path, b.Path) })
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, openapi.IndexFile), data, 0o644)
}

// write writes a document as JSON and as protobuf, both compressed.
func write(dir, path string, doc json.Marshaler, parse func([]byte) (proto.Message, error)) (openapi.Document, error) {
	data, err := doc.MarshalJSON()
	if err != nil {
		return openapi.Document{}, err
	}
	message, err := parse(data)
	if err != nil {
		return openapi.Document{}, fmt.Errorf("parsing what was made: %w", err)
	}
	pb, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return openapi.Document{}, err
	}
	d := openapi.Document{Path: path, Hash: fmt.Sprintf("%X", sha512.Sum512(data))}
	for name, content := range map[string][]byte{d.JSONFile(): data, d.ProtoFile(): pb} {
		var buf bytes.Buffer
		z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
		if err != nil {
			return d, err
		}
		if _, err := z.Write(content); err != nil {
			return d, err
		}
		if err := z.Close(); err != nil {
			return d, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), buf.Bytes(), 0o644); err != nil {
			return d, err
		}
	}
	return d, nil
}

var (
	info           = &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: "unversioned"}}
	securityScheme = spec.SecurityScheme{SecuritySchemeProps: spec.SecuritySchemeProps{Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}}
	security       = []map[string][]string{{"BearerToken": {}}}
)

func swagger(all map[schema.GroupVersion]*container, definitions common.GetOpenAPIDefinitions, names namer) (*spec.Swagger, error) {
	var routes []common.RouteContainer
	for _, c := range all {
		routes = append(routes, c)
	}
	slices.SortFunc(routes, func(a, b common.RouteContainer) int { return strings.Compare(a.RootPath(), b.RootPath()) })
	return builder.BuildOpenAPISpecFromRoutes(routes, &common.Config{
		ProtocolList:                   []string{"https"},
		Info:                           info,
		DefaultResponse:                &spec.Response{ResponseProps: spec.ResponseProps{Description: "Default Response."}},
		CommonResponses:                map[int]spec.Response{401: {ResponseProps: spec.ResponseProps{Description: "Unauthorized"}}},
		GetDefinitions:                 definitions,
		GetDefinitionName:              names.definition,
		GetOperationIDAndTagsFromRoute: operation,
		SecurityDefinitions:            &spec.SecurityDefinitions{"BearerToken": &securityScheme},
		DefaultSecurity:                security,
	})
}

func document(c *container, definitions common.GetOpenAPIDefinitions, names namer) (*spec3.OpenAPI, error) {
	return builder3.BuildOpenAPISpecFromRoutes([]common.RouteContainer{c}, &common.OpenAPIV3Config{
		Info:                           info,
		DefaultResponse:                &spec3.Response{ResponseProps: spec3.ResponseProps{Description: "Default Response."}},
		CommonResponses:                map[int]*spec3.Response{401: {ResponseProps: spec3.ResponseProps{Description: "Unauthorized"}}},
		GetDefinitions:                 definitions,
		GetDefinitionName:              names.definition,
		GetOperationIDAndTagsFromRoute: operation,
		SecuritySchemes:                spec3.SecuritySchemes{"BearerToken": &spec3.SecurityScheme{SecuritySchemeProps: spec3.SecuritySchemeProps{Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}}},
		DefaultSecurity:                security,
	})
}

// operation tags an operation with its group and version: core_v1, apps_v1.
func operation(r common.Route) (string, []string, error) {
	parts := strings.Split(strings.TrimPrefix(r.Path(), "/"), "/")
	tag := "core_" + parts[1]
	if parts[0] == "apis" {
		tag = strings.ReplaceAll(strings.TrimSuffix(parts[1], ".k8s.io"), ".", "") + "_" + parts[2]
	}
	return r.OperationName(), []string{tag}, nil
}

// namer knows which kinds a model is used as.
type namer map[string][]schema.GroupVersionKind

func newNamer(resources []*api.Resource) namer {
	n := namer{}
	add := func(model any, kinds ...schema.GroupVersionKind) {
		name := util.GetCanonicalTypeName(model)
		for _, k := range kinds {
			if !slices.Contains(n[name], k) {
				n[name] = append(n[name], k)
			}
		}
	}
	for _, r := range resources {
		for _, v := range r.Versions {
			add(v.New(), v.WithKind(r.Kind))
			if v.NewList != nil {
				add(v.NewList(), v.WithKind(r.Kind+"List"))
			}
			// These kinds of meta/v1 belong to every group and version.
			add(&metav1.DeleteOptions{}, v.WithKind("DeleteOptions"))
			add(&metav1.WatchEvent{}, v.WithKind("WatchEvent"))
		}
		for _, s := range r.Subresources {
			if model := optionModels[s.Kind.Kind]; model != nil {
				add(model, s.Kind)
			}
		}
	}
	add(&metav1.Status{}, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	for _, kinds := range n {
		slices.SortFunc(kinds, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	}
	return n
}

func (n namer) definition(name string) (string, spec.Extensions) {
	kinds := n[name]
	if len(kinds) == 0 {
		return name, nil
	}
	var list []any
	for _, k := range kinds {
		list = append(list, gvkExtension(k))
	}
	return name, spec.Extensions{"x-kubernetes-group-version-kind": list}
}

func gvkExtension(k schema.GroupVersionKind) map[string]any {
	return map[string]any{"group": k.Group, "version": k.Version, "kind": k.Kind}
}

// optionModels are the types of subresources that take an object of their own.
var optionModels = map[string]runtime.Object{
	"Scale":        &autoscalingv1.Scale{},
	"Binding":      &corev1.Binding{},
	"Eviction":     &policyv1.Eviction{},
	"TokenRequest": &authenticationv1.TokenRequest{},
}

// subresourceModel finds the type of a subresource, or tells that it is a stream.
func subresourceModel(b *routeBuilder, s api.Subresource, kind schema.GroupVersionKind) (model any, connect bool) {
	if model := optionModels[kind.Kind]; model != nil {
		return model, false
	}
	if s.Strategy != nil {
		return b.v.New(), false
	}
	return nil, true
}
