package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"busybox": "busybox:latest", "busybox:1": "busybox:1", "r.local:5000/a/b": "r.local:5000/a/b:latest",
		"a@sha256:" + strings.Repeat("0", 64): "a@sha256:" + strings.Repeat("0", 64),
		"Bad":                                 `error: couldn't parse image name "Bad": invalid reference format: repository name (library/Bad) must be lowercase`,
		"a b":                                 `error: couldn't parse image name "a b": invalid reference format`,
	} {
		got, err := Normalize(in)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("Normalize(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestMatchesRegistry(t *testing.T) {
	for _, test := range []struct {
		key, repository string
		want            bool
	}{
		{"docker.io", "docker.io/library/a", true}, {"https://index.docker.io/v1/", "docker.io/library/a", true},
		{"r.local", "r.local/a", true}, {"r.local:5000", "r.local/a", false}, {"r.local:5000", "r.local:5000/a", true},
		{"*.local", "r.local/a", true}, {"*.local", "x.r.local/a", false}, {"r.local/team", "r.local/team/a", true}, {"r.local/team", "r.local/other/a", false},
		{"http://r.local/", "r.local/a", true},
	} {
		if got := matchesRegistry(test.key, test.repository); got != test.want {
			t.Errorf("%q for %q: %t", test.key, test.repository, got)
		}
	}
}

func secret(json string) *corev1.Secret {
	return &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(json)}}
}

func TestCredentials(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("me:pa:ss"))
	for name, test := range map[string]struct{ json, want string }{
		"auth":          {`{"auths":{"r.local":{"auth":"` + auth + `"}}}`, "me/pa:ss"},
		"plain":         {`{"auths":{"r.local":{"username":"u","password":"p"}}}`, "u/p"},
		"other":         {`{"auths":{"other":{"username":"u","password":"p"}}}`, ""},
		"specific wins": {`{"auths":{"r.local":{"username":"u","password":"p"},"r.local/a":{"username":"v","password":"q"}}}`, "v/q u/p"},
		"no JSON":       {`{"auths": secret`, "error: secret /: reading .dockerconfigjson: it is no valid JSON of the expected form"},
		"bad auth":      {`{"auths":{"r.local":{"auth":"%%"}}}`, "error: secret /: registry r.local: the field auth is not valid base64"},
	} {
		list, err := Credentials("r.local/a/b:1", []*corev1.Secret{secret(test.json)})
		var parts []string
		for _, c := range list {
			parts = append(parts, c.Username+"/"+c.Password)
		}
		got := strings.Join(parts, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add(`{"auths":{"r.local":{"auth":"bWU6cGE="}}}`)
	f.Fuzz(func(t *testing.T, s string) { _, _ = Credentials("r.local/a", []*corev1.Secret{secret(s)}) })
}

// store is an image service that has some images and can pull others if the password is right.
type store struct {
	runtimeapi.ImageServiceClient
	has, remote map[string]bool
	password    string
	pulls       int
}

func (s *store) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	if !s.has[r.Image.Image] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "id of " + r.Image.Image, Size: 7, Uid: &runtimeapi.Int64Value{Value: 5}}}, nil
}

func (s *store) PullImage(_ context.Context, r *runtimeapi.PullImageRequest, _ ...grpc.CallOption) (*runtimeapi.PullImageResponse, error) {
	s.pulls++
	if !s.remote[r.Image.Image] || r.GetAuth().GetPassword() != s.password {
		return nil, errors.New("denied")
	}
	s.has[r.Image.Image] = true
	return &runtimeapi.PullImageResponse{}, nil
}

func TestEnsure(t *testing.T) {
	for name, test := range map[string]struct {
		image   string
		policy  corev1.PullPolicy
		want    string // reasons of events, then the reason of the error
		pulls   int
		secrets []*corev1.Secret
	}{
		"present":              {image: "r.local/here:1", policy: corev1.PullIfNotPresent, want: "Pulled"},
		"present, asked again": {image: "r.local/here:1", policy: corev1.PullAlways, want: "Pulling Pulled", pulls: 1},
		"present, never":       {image: "r.local/here:1", policy: corev1.PullNever, want: "Pulled"},
		"pulled":               {image: "r.local/there:1", policy: corev1.PullIfNotPresent, want: "Pulling Pulled", pulls: 1},
		"absent, never":        {image: "r.local/there:1", policy: corev1.PullNever, want: "ErrImageNeverPull ErrImageNeverPull"},
		"absent everywhere":    {image: "r.local/none:1", policy: corev1.PullIfNotPresent, want: "Pulling Failed ErrImagePull", pulls: 1},
		"no name":              {image: "No Name", policy: corev1.PullIfNotPresent, want: "InspectFailed InvalidImageName"},
		"with the second secret": {image: "r.local/there:1", policy: corev1.PullIfNotPresent, want: "Pulling Pulled", pulls: 2,
			secrets: []*corev1.Secret{secret(`{"auths":{"r.local/there":{"username":"u","password":"bad"}}}`), secret(`{"auths":{"r.local":{"username":"u","password":"good"}}}`)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &store{has: map[string]bool{"r.local/here:1": true}, remote: map[string]bool{"r.local/here:1": true, "r.local/there:1": true}}
			if test.secrets != nil {
				s.password = "good"
			}
			var reasons []string
			used := ""
			p := New(s, func(_ *corev1.Pod, _, _, reason, _ string) { reasons = append(reasons, reason) }, func(id string) { used = id })
			request := &Request{Pod: &corev1.Pod{}, Image: test.image, Policy: test.policy, Secrets: test.secrets}
			ref, user, err := p.Ensure(t.Context(), request)
			var e *Error
			if errors.As(err, &e) {
				reasons = append(reasons, e.Reason)
			} else if ref.Image != "id of "+test.image || used != ref.Image || *user.UID != 5 || ref.UserSpecifiedImage != test.image {
				t.Errorf("got %v, user %v, used %q", ref, user, used)
			}
			if got := strings.Join(reasons, " "); got != test.want || s.pulls != test.pulls {
				t.Errorf("got %q with %d pulls, want %q with %d", got, s.pulls, test.want, test.pulls)
			}
			if e == nil || e.Reason != ErrImagePull {
				return
			}
			_, _, err = p.Ensure(t.Context(), request)
			if !errors.As(err, &e) || e.Reason != ImagePullBackOff || e.Message != fmt.Sprintf("Back-off pulling image %q: ErrImagePull: denied", test.image) || s.pulls != test.pulls {
				t.Errorf("at once again: %v", err)
			}
		})
	}
}
