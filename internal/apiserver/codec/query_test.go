package codec

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func TestDecodeQuery(t *testing.T) {
	for _, tc := range []struct {
		query   string
		into    runtime.Object
		want    runtime.Object
		wantErr bool
	}{
		{"command=ls&command=-l&stdin=true&stdout=1&tty=false&stderr=0&container=c&other=x", &corev1.PodExecOptions{}, &corev1.PodExecOptions{Command: []string{"ls", "-l"}, Stdin: true, Stdout: true, Container: "c"}, false},
		{"stdin", &corev1.PodAttachOptions{}, &corev1.PodAttachOptions{Stdin: true}, false},
		{"ports=80&ports=81", &corev1.PodPortForwardOptions{}, &corev1.PodPortForwardOptions{Ports: []int32{80, 81}}, false},
		{"ports=http", &corev1.PodPortForwardOptions{}, nil, true},
		{"tailLines=5&follow=true&stream=Stdout", &corev1.PodLogOptions{}, &corev1.PodLogOptions{TailLines: ptr.To[int64](5), Follow: true, Stream: ptr.To("Stdout")}, false},
		{"sinceTime=yesterday", &corev1.PodLogOptions{}, nil, true},
		{"path=/x", &corev1.NodeProxyOptions{}, &corev1.NodeProxyOptions{Path: "/x"}, false},
		{"", &metav1.ListOptions{}, &metav1.ListOptions{}, false},
	} {
		q, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		err = DecodeQuery(q, tc.into)
		if (err != nil) != tc.wantErr {
			t.Errorf("%q: %v", tc.query, err)
			continue
		}
		if err == nil && !cmp.Equal(tc.into, tc.want) {
			t.Errorf("%q: %s", tc.query, cmp.Diff(tc.want, tc.into))
		}
	}
}
