package assemble

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/common"
)

// param is one parameter; it implements common.Parameter.
type param struct {
	name, description string
	kind              common.ParameterKind
	dataType          string
	required          bool
}

func (p param) Name() string               { return p.name }
func (p param) Description() string        { return p.description }
func (p param) Required() bool             { return p.required }
func (p param) Kind() common.ParameterKind { return p.kind }
func (p param) DataType() string           { return p.dataType }
func (p param) AllowMultiple() bool        { return false }

var (
	prettyParam    = param{name: "pretty", description: "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).", kind: common.QueryParameterKind, dataType: "string"}
	namespaceParam = param{name: "namespace", description: "object name and auth scope, such as for teams and projects", kind: common.PathParameterKind, dataType: "string", required: true}
	bodyParam      = param{name: "body", kind: common.BodyParameterKind, required: true}
	optionalBody   = param{name: "body", kind: common.BodyParameterKind}

	listParams   = optionParams(metav1.ListOptions{}, metav1.ListOptions{}.SwaggerDoc())
	writeParams  = optionParams(metav1.CreateOptions{}, metav1.CreateOptions{}.SwaggerDoc())
	deleteParams = without(optionParams(metav1.DeleteOptions{}, metav1.DeleteOptions{}.SwaggerDoc()), "preconditions")
	logParams    = optionParams(corev1.PodLogOptions{}, corev1.PodLogOptions{}.SwaggerDoc())
	forceParam   = without(optionParams(metav1.PatchOptions{}, metav1.PatchOptions{}.SwaggerDoc()), "dryRun", "fieldManager", "fieldValidation")[0]
)

func nameParam(kind string) param {
	return param{name: "name", description: "name of the " + kind, kind: common.PathParameterKind, dataType: "string", required: true}
}

// optionParams makes a query parameter of each field of an options type, with the documentation of its Go field.
func optionParams(options any, docs map[string]string) []common.Parameter {
	var params []common.Parameter
	t := reflect.TypeOf(options)
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		params = append(params, param{name: name, description: docs[name], kind: common.QueryParameterKind, dataType: dataType(f.Type)})
	}
	return params
}

func dataType(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int64, reflect.Int32:
		return "integer"
	default:
		return "string"
	}
}

func without(params []common.Parameter, names ...string) []common.Parameter {
	var kept []common.Parameter
	for _, p := range params {
		if !slices.Contains(names, p.Name()) {
			kept = append(kept, p)
		}
	}
	return kept
}
