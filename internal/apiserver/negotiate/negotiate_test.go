package negotiate

import (
	"net/http/httptest"
	"testing"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

func TestAnswer(t *testing.T) {
	const proto = "application/vnd.kubernetes.protobuf"
	for _, tc := range []struct {
		accept, agent, query string
		offer                Offer
		enc                  codec.Encoding
		convert              string
		pretty, refused      bool
	}{
		{accept: "", offer: Plain, enc: codec.JSON},
		{accept: "*/*", agent: "curl/8", offer: Plain, enc: codec.JSON, pretty: true},
		{accept: "*/*", agent: "curl/8", query: "?pretty=0", offer: Plain, enc: codec.JSON},
		{accept: proto + ",application/json", offer: Plain, enc: codec.Protobuf},
		{accept: "application/json;q=0.5, " + proto + ";q=0.1", offer: Plain, enc: codec.JSON},
		{accept: "application/yaml", offer: Plain, enc: codec.YAML},
		{accept: "text/html,application/*", offer: Plain, enc: codec.JSON},
		{accept: "text/html", offer: Plain, refused: true},
		{accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", offer: Tabular, enc: codec.JSON, convert: "Table"},
		{accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", offer: Metadata, enc: codec.JSON},
		{accept: "application/json;as=Table;v=v1;g=meta.k8s.io", offer: Metadata, refused: true},
		{accept: proto + ";as=Table;v=v1;g=meta.k8s.io", offer: Tabular, refused: true},
		{accept: proto + ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", offer: Tabular, enc: codec.Protobuf, convert: "PartialObjectMetadataList"},
		{accept: "application/json;as=Table;v=v9;g=meta.k8s.io", offer: Tabular, refused: true},
		{accept: "application/json;pretty=1", offer: Plain, enc: codec.JSON, pretty: true},
		{accept: "application/json;stream=chat", offer: Plain, refused: true},
	} {
		r := httptest.NewRequest("GET", "/"+tc.query, nil)
		r.Header.Set("Accept", tc.accept)
		r.Header.Set("User-Agent", tc.agent)
		m, err := Answer(r, tc.offer)
		if (err != nil) != tc.refused || err == nil && (m.Encoding != tc.enc || m.Convert.Kind != tc.convert || m.Pretty != tc.pretty) {
			t.Errorf("%+v: %+v, %v", tc, m, err)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept", "application/yaml")
	if _, err := Stream(r, Plain); err == nil || err.Error() != "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch" {
		t.Errorf("a watch in YAML: %v", err)
	}
}
