package conformance

import (
	"slices"
	"strings"
	"testing"
)

const flawedDeployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME","unknownMeta":1,"labels":{"app":"nginx"}},
"spec":{"unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,"paused":false,
"selector":{"matchLabels":{"app":"nginx"}},
"template":{"metadata":{"labels":{"app":"nginx"},"unknownNestedMeta":1},"spec":{"containers":[{"name":"nginx","image":"nginx:latest",
"unknownNested":"val1","imagePullPolicy":"Always","imagePullPolicy":"Never"}]}}}}`

const flawedYAML = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
  unknownMeta: unknownMetaVal
spec:
  unknown1: val1
  unknownDupe: valDupe
  unknownDupe: valDupe2
  paused: true
  paused: false
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:latest
        unknownNested: val1
        imagePullPolicy: Always
        imagePullPolicy: Never
`

// [sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object; should detect unknown
// metadata fields of a typed object.
func TestFieldValidation(t *testing.T) {
	ns := namespace(t)
	path := "/apis/apps/v1/namespaces/" + ns + "/deployments"
	valid := strings.NewReplacer(`"unknownMeta":1,`, "", `"unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,`, "",
		`,"unknownNestedMeta":1`, "", `"unknownNested":"val1","imagePullPolicy":"Always",`, "").Replace(flawedDeployment)
	if a := request(t, "POST", path+"?fieldValidation=Strict", strings.Replace(valid, "NAME", "valid", 1)); a.code != 201 || len(a.warnings) > 0 {
		t.Fatalf("the valid object: %d %s %v", a.code, a.body, a.warnings)
	}
	flaws := []string{`duplicate field "spec.paused"`, `duplicate field "spec.template.spec.containers[0].imagePullPolicy"`,
		`unknown field "metadata.unknownMeta"`, `unknown field "spec.template.metadata.unknownNestedMeta"`,
		`unknown field "spec.template.spec.containers[0].unknownNested"`, `unknown field "spec.unknown1"`, `unknown field "spec.unknownDupe"`}
	inYAML := []string{`line 9: key "unknownDupe" already set in map`, `line 11: key "paused" already set in map`, `line 25: key "imagePullPolicy" already set in map`,
		`unknown field "metadata.unknownMeta"`, `unknown field "spec.template.spec.containers[0].unknownNested"`, `unknown field "spec.unknown1"`, `unknown field "spec.unknownDupe"`}
	for _, test := range []struct {
		name, method, path, body, mime string
		flaws                          []string
		created                        int
	}{
		{"post", "POST", path, flawedDeployment, "application/json", flaws, 201},
		{"post-yaml", "POST", path, flawedYAML, "application/yaml", inYAML, 201},
		{"valid", "PUT", path + "/valid", flawedDeployment, "application/json", flaws, 200},
		{"valid", "PATCH", path + "/valid", `{"spec":{"unknown1":"a","unknownDupe":1,"unknownDupe":2,"paused":true,"paused":false}}`, "application/merge-patch+json",
			[]string{`duplicate field "spec.unknownDupe"`, `duplicate field "spec.paused"`, `unknown field "spec.unknown1"`, `unknown field "spec.unknownDupe"`}, 200},
		{"valid", "PATCH", path + "/valid", `{"spec":{"unknown1":"a","unknownDupe":1,"unknownDupe":2,"paused":true,"paused":false}}`, "application/strategic-merge-patch+json",
			[]string{`duplicate field "spec.unknownDupe"`, `duplicate field "spec.paused"`, `unknown field "spec.unknown1"`, `unknown field "spec.unknownDupe"`}, 200},
		{"valid", "PATCH", path + "/valid", `[{"op":"add","path":"/spec/unknown1","value":1,"foo":"bar"},{"op":"add","path":"/spec/paused","value":true,"value":false}]`, "application/json-patch+json",
			[]string{`json patch unknown field "[0].foo"`, `json patch duplicate field "[1].value"`, `unknown field "spec.unknown1"`}, 200},
	} {
		t.Run(test.method+" "+test.mime, func(t *testing.T) {
			kind := "Content-Type: " + test.mime
			body := strings.Replace(test.body, "NAME", test.name, 1)
			a := request(t, test.method, test.path+"?fieldValidation=Strict", body, kind)
			all, ok := strings.CutPrefix(a.status.Message, "")
			for _, flaw := range test.flaws {
				ok = ok && strings.Contains(all, flaw)
			}
			if a.code != 400 && a.code != 422 || !ok || !strings.Contains(all, "strict decoding error: ") {
				t.Errorf("strict: %d %q, want %q", a.code, a.status.Message, test.flaws)
			}
			for _, how := range []string{"?fieldValidation=Warn", ""} {
				a = request(t, test.method, test.path+how, body, kind)
				if a.code != test.created || !slices.Equal(slices.Sorted(slices.Values(a.warnings)), slices.Sorted(slices.Values(test.flaws))) {
					t.Errorf("warn: %d %s %q, want %q", a.code, a.status.Message, a.warnings, test.flaws)
				}
				if test.method == "POST" {
					request(t, "DELETE", path+"/"+test.name, "")
				}
			}
			a = request(t, test.method, test.path+"?fieldValidation=Ignore", body, kind)
			if a.code != test.created || len(a.warnings) > 0 {
				t.Errorf("ignore: %d %q", a.code, a.warnings)
			}
		})
	}
	t.Run("apply", func(t *testing.T) {
		kind := "Content-Type: application/apply-patch+yaml"
		apply := path + "/applied?fieldManager=m&fieldValidation="
		for _, how := range []string{"Strict", "Warn", "Ignore"} {
			a := request(t, "PATCH", apply+how, strings.Replace(flawedYAML, "NAME", "applied", 1), kind)
			if a.code != 500 || !strings.Contains(a.status.Message, ": field not declared in schema") {
				t.Errorf("%s: %d %s", how, a.code, a.status.Message)
			}
		}
		body := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: valid}\nspec:\n  paused: true\n  paused: false\n"
		apply = path + "/valid?fieldManager=m&force=true&fieldValidation="
		flaw := "yaml: unmarshal errors:\n  line 6: key \"paused\" already set in map"
		request(t, "PATCH", apply+"Strict", body, kind).refused(t, 400, "BadRequest", "error strict decoding patch: error converting YAML to JSON: "+flaw)
		if a := request(t, "PATCH", apply+"Warn", body, kind); a.code != 200 || len(a.warnings) != 1 || !strings.Contains(a.warnings[0], `key "paused" already set in map`) {
			t.Errorf("warn: %d %s %q", a.code, a.status.Message, a.warnings)
		}
		if a := request(t, "PATCH", apply+"Ignore", body, kind); a.code != 200 || len(a.warnings) != 0 {
			t.Errorf("ignore: %d %s %q", a.code, a.status.Message, a.warnings)
		}
	})
}
