package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

// manager makes one whose ConfigMap "cm" and Secret "s" hold data, which a test may change.
func manager(t *testing.T, data map[string]string) *Manager {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	issued := 0
	m := New(Config{
		PodsDir: filepath.Join(t.TempDir(), "pods"),
		ConfigMap: func(_ context.Context, _ *corev1.Pod, name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
			}
			return &corev1.ConfigMap{Data: data}, nil
		},
		Secret: func(_ context.Context, _ *corev1.Pod, name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
			}
			return &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}, nil
		},
		Token: func(_ context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			issued++
			r.Status.Token = fmt.Sprintf("%s/%s/%d", namespace, account, issued)
			r.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second))
			return r, nil
		},
		FieldValue: func(pod *corev1.Pod, path string) (string, error) { return path + " of " + pod.Name, nil },
	})
	t.Cleanup(func() {
		uids, err := m.Present()
		for _, uid := range uids {
			err = errors.Join(err, m.Teardown(uid))
		}
		if err != nil {
			t.Error(err)
		}
		if left, _ := mountinfo.GetMounts(mountinfo.PrefixFilter(m.cfg.PodsDir)); len(left) > 0 {
			t.Errorf("mounts are left: %v", left)
		}
	})
	return m
}

func podWith(v ...corev1.VolumeSource) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: corev1.PodSpec{ServiceAccountName: "sa", Containers: []corev1.Container{{Name: "c"}}}}
	for i := range v {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: v[i]})
	}
	return p
}

func (m *Manager) read(t *testing.T, pod *corev1.Pod, volume, name string) string {
	t.Helper()
	dir, err := m.Path(pod, volume)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "error: " + errors.Unwrap(err).Error()
	}
	return string(data)
}

func TestConfigMapVolume(t *testing.T) {
	data := map[string]string{"a": "1", "b": "2"}
	m := manager(t, data)
	pod := podWith(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, DefaultMode: ptr(int32(0o600))}})
	setup := func() {
		t.Helper()
		if _, err := m.Setup(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	setup()
	dir, _ := m.Path(pod, "v0")
	version := func() string { s, _ := os.Readlink(filepath.Join(dir, "..data")); return s }
	first := version()
	if m.read(t, pod, "v0", "a") != "1" || m.read(t, pod, "v0", "b") != "2" {
		t.Error("files are missing")
	}
	if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	setup()
	if version() != first {
		t.Error("what has not changed was written again")
	}
	delete(data, "b")
	data["a"] = "new"
	data["c"] = "3"
	setup()
	if m.read(t, pod, "v0", "a") != "new" || m.read(t, pod, "v0", "c") != "3" || !strings.HasPrefix(m.read(t, pod, "v0", "b"), "error") {
		t.Error("the change did not arrive")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 { // a, c, ..data and its directory
		t.Errorf("the volume holds %v, %v", entries, err)
	}
}

func TestVolumeKinds(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := func(name string, kind corev1.HostPathType) corev1.VolumeSource {
		return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(host, name), Type: &kind}}
	}
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	for name, test := range map[string]struct {
		source corev1.VolumeSource
		err    string
	}{
		"directory":              {path("", corev1.HostPathDirectory), ""},
		"no directory":           {path("file", corev1.HostPathDirectory), "hostPath type check failed: " + host + "/file is not a directory"},
		"missing directory":      {path("none", corev1.HostPathDirectory), "hostPath type check failed: " + host + "/none is not a directory"},
		"made directory":         {path("made/deep", corev1.HostPathDirectoryOrCreate), ""},
		"file":                   {path("file", corev1.HostPathFile), ""},
		"no file":                {path("", corev1.HostPathFile), "hostPath type check failed: " + host + " is not a file"},
		"made file":              {path("made-file", corev1.HostPathFileOrCreate), ""},
		"no socket":              {path("file", corev1.HostPathSocket), "hostPath type check failed: " + host + "/file is not a socket file"},
		"character device":       {corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/dev/null", Type: ptr(corev1.HostPathCharDev)}}, ""},
		"no block device":        {corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/dev/null", Type: ptr(corev1.HostPathBlockDev)}}, "hostPath type check failed: /dev/null is not a block device"},
		"missing map":            {corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("x")}}, `configmap "x" not found`},
		"missing optional map":   {corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("x"), Optional: ptr(true)}}, ""},
		"missing key":            {corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cm"), Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}}, "references non-existent config key: z"},
		"missing secret key":     {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}}, "references non-existent secret key: z"},
		"path that leaves":       {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "../z"}}}}, `invalid path "../z": must be relative and stay within the volume`},
		"kind that is not known": {corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{}}, "no volume plugin matched"},
	} {
		t.Run(name, func(t *testing.T) {
			m := manager(t, nil)
			_, err := m.Setup(t.Context(), podWith(test.source))
			if test.err != "" {
				test.err = `MountVolume.SetUp failed for volume "v0" : ` + test.err
			}
			if got := fmt.Sprint(err); err == nil && test.err != "" || err != nil && got != test.err {
				t.Errorf("got %q, want %q", got, test.err)
			}
		})
	}
}

func TestEmptyDirs(t *testing.T) {
	m := manager(t, nil)
	size := resource.MustParse("1Mi")
	pod := podWith(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}})
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(4321))}
	if _, err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v0", "v1"} {
		dir, _ := m.Path(pod, v)
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if gid := info.Sys().(*syscall.Stat_t).Gid; gid != 4321 || info.Mode()&os.ModeSetgid == 0 || info.Mode().Perm() != 0o777 {
			t.Errorf("%s: group %d, mode %v", v, gid, info.Mode())
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), []byte("kept"), 0o600); err != nil {
			t.Error(err)
		}
	}
	memory, _ := m.Path(pod, "v1")
	if err := os.WriteFile(filepath.Join(memory, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the size is not limited: %v", err)
	}
	if _, err := m.Setup(t.Context(), pod); err != nil || m.read(t, pod, "v0", "x") != "kept" || m.read(t, pod, "v1", "x") != "kept" {
		t.Errorf("setting up again loses data: %v", err)
	}
}

func TestProjected(t *testing.T) {
	m := manager(t, map[string]string{"a": "1"})
	pod := podWith(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Items: []corev1.KeyToPath{{Key: "k", Path: "deep/k"}}}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr(int64(1000))}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
	}}})
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(77))}
	refresh, err := m.Setup(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(refresh); left < 790*time.Second || left > 801*time.Second {
		t.Errorf("the token is renewed after %v", left)
	}
	for name, want := range map[string]string{"a": "1", "deep/k": "v", "token": "n/sa/1", "name": "metadata.name of p"} {
		if got := m.read(t, pod, "v0", name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	dir, _ := m.Path(pod, "v0")
	info, err := os.Stat(filepath.Join(dir, "token"))
	if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != 77 {
		t.Errorf("the token's file is %v of %v: %v", info.Mode(), info.Sys(), err)
	}
	if mounted, err := mountinfo.Mounted(dir); err != nil || !mounted {
		t.Errorf("secrets are not kept in memory: %v", err)
	}
	if _, err := m.Setup(t.Context(), pod); err != nil || m.read(t, pod, "v0", "token") != "n/sa/1" {
		t.Errorf("the token was not kept: %v", err)
	}
}

func TestSubPaths(t *testing.T) {
	m := manager(t, nil)
	pod := podWith(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	if _, err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	dir, _ := m.Path(pod, "v0")
	secret := filepath.Join(t.TempDir(), "secret")
	for _, err := range []error{
		os.WriteFile(secret, []byte("x"), 0o600), os.Symlink(filepath.Dir(secret), filepath.Join(dir, "out")),
		os.Symlink("../../../../..", filepath.Join(dir, "up")), os.Mkdir(filepath.Join(dir, "in"), 0o755), os.Symlink("in", filepath.Join(dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mount := func(vm corev1.VolumeMount) error {
		vm.Name, vm.MountPath = "v0", "/m"
		c := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{vm}}
		_, err := m.Mounts(pod, c, MountOptions{Expand: func(s string) (string, error) { return strings.ReplaceAll(s, "$(X)", "/abs"), nil }})
		return err
	}
	for name, test := range map[string]struct {
		vm  corev1.VolumeMount
		err string
	}{
		"made":                         {corev1.VolumeMount{SubPath: "new/deep"}, ""},
		"there":                        {corev1.VolumeMount{SubPath: "in"}, ""},
		"inner link":                   {corev1.VolumeMount{SubPath: "link"}, ""},
		"link out":                     {corev1.VolumeMount{SubPath: "out"}, "not within volume path"},
		"link up":                      {corev1.VolumeMount{SubPath: "up/etc"}, "not within volume path"},
		"dots":                         {corev1.VolumeMount{SubPath: "../x"}, "must not contain '..'"},
		"expanded to an absolute path": {corev1.VolumeMount{SubPathExpr: "$(X)"}, "must not be an absolute path"},
	} {
		err := mount(test.vm)
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %v, want %q", name, err, test.err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "new/deep")); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the directory that was made is %v, %v", info, err)
	}
}
