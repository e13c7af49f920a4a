package conformance

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// [sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup; should locate the groupVersion and a
// resource within each APIGroup. server version should find the server version.
func TestDiscovery(t *testing.T) {
	groups, err := client.Discovery().ServerGroups()
	must(t, err)
	for _, g := range groups.Groups {
		if len(g.Versions) == 0 || !slices.Contains(g.Versions, g.PreferredVersion) {
			t.Errorf("group %q prefers %+v of %+v", g.Name, g.PreferredVersion, g.Versions)
		}
		if g.Name != "" {
			a := request(t, "GET", "/apis/"+g.Name, "")
			var one metav1.APIGroup
			must(t, json.Unmarshal(a.body, &one))
			if one.Name != g.Name || one.PreferredVersion != g.PreferredVersion || one.Kind != "APIGroup" {
				t.Errorf("group %s: %s", g.Name, a.body)
			}
		}
		for _, v := range g.Versions {
			list, err := client.Discovery().ServerResourcesForGroupVersion(v.GroupVersion)
			must(t, err)
			if list.GroupVersion != v.GroupVersion || len(list.APIResources) == 0 {
				t.Errorf("%s has %d resources in %s", v.GroupVersion, len(list.APIResources), list.GroupVersion)
			}
			for _, r := range list.APIResources {
				if r.Kind == "" || len(r.Verbs) == 0 || r.SingularName == "" && !strings.Contains(r.Name, "/") {
					t.Errorf("%s: %+v", v.GroupVersion, r)
				}
			}
		}
	}
	version, err := client.Discovery().ServerVersion()
	must(t, err)
	if version.Major != "1" || version.Minor == "" || !strings.HasPrefix(version.GitVersion, "v1."+version.Minor+".") {
		t.Errorf("version %+v", version)
	}
}

// [sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface; should support raw aggregated
// discovery endpoint Accept headers.
func TestAggregatedDiscovery(t *testing.T) {
	const v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	for path, group := range map[string]string{"/api": "", "/apis": "apps"} {
		for accept, want := range map[string]string{
			v2: v2,
			"application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList":                                                                                       "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
			"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json": v2,
			"application/json": "application/json",
			"application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json": "application/json",
		} {
			a := request(t, "GET", path, "", "Accept: "+accept)
			if got := a.header.Get("Content-Type"); a.code != 200 || got != want {
				if !(strings.Contains(accept, "v2beta1;as=APIGroupDiscoveryList") && !strings.Contains(accept, "v2;") && a.code == 406) {
					t.Errorf("%s, Accept %s: %d %s", path, accept, a.code, got)
				}
			}
		}
		a := request(t, "GET", path, "", "Accept: "+v2)
		var list apidiscoveryv2.APIGroupDiscoveryList
		must(t, json.Unmarshal(a.body, &list))
		i := slices.IndexFunc(list.Items, func(g apidiscoveryv2.APIGroupDiscovery) bool { return g.Name == group })
		if list.Kind != "APIGroupDiscoveryList" || list.APIVersion != "apidiscovery.k8s.io/v2" || i < 0 || list.Items[i].Versions[0].Version != "v1" {
			t.Errorf("%s: %s", path, a.body[:100])
		}
		if a2 := request(t, "GET", path, "", "Accept: "+v2, `If-None-Match: `+a.header.Get("Etag")); a2.code != 304 {
			t.Errorf("%s with its ETag: %d", path, a2.code)
		}
	}
}

// [sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement
// metadata; tables of pods and of lists.
func TestTables(t *testing.T) {
	const accept = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io"
	review := `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"nonResourceAttributes":{"path":"","verb":"get"}}}`
	request(t, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, accept).refused(t, 406, "NotAcceptable",
		"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf")
	for path, columns := range map[string][]string{
		"/api/v1/pods":                         {"Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates"},
		"/api/v1/namespaces":                   {"Name", "Status", "Age"},
		"/api/v1/namespaces/default":           {"Name", "Status", "Age"},
		"/apis/policy/v1/poddisruptionbudgets": {"Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"},
	} {
		a := request(t, "GET", path, "", accept)
		var table metav1.Table
		must(t, json.Unmarshal(a.body, &table))
		var got []string
		for _, c := range table.ColumnDefinitions {
			got = append(got, c.Name)
		}
		if a.code != 200 || !slices.Equal(got, columns) {
			t.Errorf("%s: %d %q", path, a.code, got)
		}
		for _, row := range table.Rows {
			if len(row.Cells) != len(columns) || len(row.Object.Raw) == 0 {
				t.Errorf("%s: %+v", path, row)
			}
		}
	}
}
