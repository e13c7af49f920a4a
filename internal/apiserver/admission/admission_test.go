package admission

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

// objects are what the plugins read in tests.
type objects []metav1.Object

func get[T metav1.Object](all *objects) lookup.Getter[T] {
	return func(_ context.Context, namespace, name string) (T, error) {
		for _, o := range *all {
			if t, ok := o.(T); ok && t.GetNamespace() == namespace && t.GetName() == name {
				return t, nil
			}
		}
		var none T
		return none, store.ErrNotFound
	}
}

func list[T metav1.Object](all *objects) lookup.Lister[T] {
	return func(_ context.Context, namespace string) ([]T, error) {
		var found []T
		for _, o := range *all {
			if t, ok := o.(T); ok && (namespace == "" || t.GetNamespace() == namespace) {
				found = append(found, t)
			}
		}
		return found, nil
	}
}

func objectMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-of-" + name)}
}

// config reads the given objects, beside a namespace dev with its default account.
func config(more ...metav1.Object) Config {
	all := append(objects{
		&corev1.Namespace{ObjectMeta: objectMeta("", "dev")},
		&corev1.ServiceAccount{ObjectMeta: objectMeta("dev", "default")},
	}, more...)
	return Config{
		Namespaces: get[*corev1.Namespace](&all), NamespacesLatest: get[*corev1.Namespace](&all),
		ServiceAccounts: get[*corev1.ServiceAccount](&all),
		Pods:            get[*corev1.Pod](&all), PodList: list[*corev1.Pod](&all), Nodes: get[*corev1.Node](&all),
		LimitRanges: list[*corev1.LimitRange](&all), PriorityClasses: get[*schedulingv1.PriorityClass](&all),
		PriorityClassSet: list[*schedulingv1.PriorityClass](&all), RuntimeClasses: get[*nodev1.RuntimeClass](&all),
		StorageClasses: list[*storagev1.StorageClass](&all), IngressClasses: list[*networkingv1.IngressClass](&all),
		CSIDrivers: get[*storagev1.CSIDriver](&all), StorageProtection: true,
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetUser().GetName() == "may-"+a.GetVerb() {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "no rule", nil
		}),
		ResourceFor: func(gvk schema.GroupVersionKind) (schema.GroupVersionResource, bool) {
			return gvk.GroupVersion().WithResource(strings.ToLower(gvk.Kind) + "s"), gvk.Kind != "Unknown"
		},
	}
}

func newChain(t *testing.T, c Config) *Chain {
	t.Helper()
	chain, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// request describes what is admitted; the resource is that of the object unless given.
type request struct {
	obj, old runtime.Object
	resource schema.GroupVersionResource
	sub      string
	op       admission.Operation
	name, ns string
	user     user.Info
}

var resourcesOf = map[reflect.Type]schema.GroupVersionResource{
	reflect.TypeFor[*corev1.Pod]():                   corev1.SchemeGroupVersion.WithResource("pods"),
	reflect.TypeFor[*corev1.Node]():                  corev1.SchemeGroupVersion.WithResource("nodes"),
	reflect.TypeFor[*corev1.Namespace]():             corev1.SchemeGroupVersion.WithResource("namespaces"),
	reflect.TypeFor[*corev1.ConfigMap]():             corev1.SchemeGroupVersion.WithResource("configmaps"),
	reflect.TypeFor[*corev1.Service]():               corev1.SchemeGroupVersion.WithResource("services"),
	reflect.TypeFor[*corev1.PersistentVolume]():      corev1.SchemeGroupVersion.WithResource("persistentvolumes"),
	reflect.TypeFor[*corev1.PersistentVolumeClaim](): corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"),
	reflect.TypeFor[*schedulingv1.PriorityClass]():   schedulingv1.SchemeGroupVersion.WithResource("priorityclasses"),
	reflect.TypeFor[*networkingv1.Ingress]():         networkingv1.SchemeGroupVersion.WithResource("ingresses"),
}

func (r request) attributes() admission.Attributes {
	if r.op == "" {
		r.op = admission.Create
		if r.old != nil {
			r.op = admission.Update
		}
	}
	for _, o := range []runtime.Object{r.obj, r.old} {
		if o == nil {
			continue
		}
		if r.resource.Empty() {
			r.resource = resourcesOf[reflect.TypeOf(o)]
		}
		if m, ok := o.(metav1.Object); ok {
			if r.name == "" {
				r.name = m.GetName()
			}
			if r.ns == "" {
				r.ns = m.GetNamespace()
			}
		}
	}
	if r.user == nil {
		r.user = &user.DefaultInfo{Name: "ann"}
	}
	return admission.NewAttributesRecord(r.obj, r.old, schema.GroupVersionKind{}, r.ns, r.name, r.resource, r.sub, r.op, nil, false, r.user)
}

func admit(t *testing.T, c *Chain, r request) error {
	t.Helper()
	a := r.attributes()
	if err := c.Admit(t.Context(), a, nil); err != nil {
		return err
	}
	return c.Validate(t.Context(), a, nil)
}

func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: objectMeta("dev", "p"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if change != nil {
		change(p)
	}
	return p
}

// check demands an error that contains want, or none when want is empty.
func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want an error with %q", err, want)
	}
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			t.Errorf("%T is no Status", err)
		}
	}
}

func TestChain(t *testing.T) {
	c := newChain(t, config())
	if !slices.IsSortedFunc(c.Plugins(), func(a, b string) int {
		return slices.Index(DefaultPlugins, a) - slices.Index(DefaultPlugins, b)
	}) {
		t.Errorf("order is %v", c.Plugins())
	}
	if got := c.Plugins(); len(got) != len(DefaultPlugins) {
		t.Errorf("running are %v", got)
	}
	if _, err := New(Config{Disable: []string{"Nonsense"}}); err == nil || !strings.Contains(err.Error(), `no admission plugin "Nonsense"`) {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{Enable: []string{"LimitRanger"}}); err == nil || !strings.Contains(err.Error(), "needs a kind that is not served or a controller that does not run") {
		t.Errorf("got %v", err)
	}
	conf := config()
	conf.StorageProtection = false
	if got := newChain(t, conf).Plugins(); slices.Contains(got, "StorageObjectInUseProtection") {
		t.Error("finalizers are set that nobody takes away")
	}
	conf = config()
	conf.Disable, conf.Enable = []string{"Priority"}, []string{"DenyServiceExternalIPs"}
	if got := newChain(t, conf).Plugins(); slices.Contains(got, "Priority") || !slices.Contains(got, "DenyServiceExternalIPs") {
		t.Errorf("running are %v", got)
	}

	// Dynamic plugins see what the others made of the object.
	conf = config()
	seen := ""
	conf.Dynamic = []Plugin{{Name: "hook", Applies: func(t Target) bool { return t.Is(pods) }, Admit: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
		seen = a.GetObject().(*corev1.Pod).Spec.ServiceAccountName
		return errors.New("stop")
	}}}
	c = newChain(t, conf)
	if err := c.Admit(t.Context(), request{obj: pod(nil)}.attributes(), nil); err == nil || seen != "default" {
		t.Errorf("got %v %q", err, seen)
	}
	if err := c.Admit(t.Context(), request{obj: &corev1.ConfigMap{ObjectMeta: objectMeta("dev", "x")}}.attributes(), nil); err != nil {
		t.Errorf("a plugin was asked about what it isn't for: %v", err)
	}
}

// Nothing changes objects of most kinds: the server relies on it and leaves a second pass of defaults out.
func TestMutates(t *testing.T) {
	c := newChain(t, config())
	for _, test := range []struct {
		request request
		want    bool
	}{
		{request{obj: pod(nil)}, true},
		{request{obj: &corev1.ConfigMap{ObjectMeta: objectMeta("dev", "x")}}, false},
		{request{obj: &corev1.Namespace{ObjectMeta: objectMeta("", "x")}}, false},
	} {
		a := test.request.attributes()
		if got := c.Mutates(a); got != test.want {
			t.Errorf("%s: %v", a.GetResource().Resource, got)
		}
		if a.GetNamespace() == "" {
			continue
		}
		// What is only checked is checked all the same.
		if err := newChain(t, Config{Namespaces: get[*corev1.Namespace](&objects{})}).Admit(t.Context(), a, nil); !apierrors.IsNotFound(err) {
			t.Errorf("%s in a namespace that isn't there: %v", a.GetResource().Resource, err)
		}
	}
}

// TestChainAtOnce lets many meet targets for the first time at once.
func TestChainAtOnce(t *testing.T) {
	c := newChain(t, config())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, sub := range []string{"", "status", "a", "b", "c"} {
				a := request{obj: pod(nil), sub: sub}.attributes()
				if err := c.Admit(context.Background(), a, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := len(*c.steps.Load()); n != 5 {
		t.Errorf("%d targets", n)
	}
}

func TestNamespaceLifecycle(t *testing.T) {
	ending := &corev1.Namespace{ObjectMeta: objectMeta("", "ending"), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}
	c := newChain(t, config(ending))
	cm := func(ns string) *corev1.ConfigMap { return &corev1.ConfigMap{ObjectMeta: objectMeta(ns, "cm")} }
	for name, test := range map[string]struct {
		r    request
		want string
		is   func(error) bool
	}{
		"active":                    {r: request{obj: cm("dev")}},
		"missing":                   {r: request{obj: cm("nowhere")}, want: `namespaces "nowhere" not found`, is: apierrors.IsNotFound},
		"ending":                    {r: request{obj: cm("ending")}, want: `configmaps "cm" is forbidden: unable to create new content in namespace ending because it is being terminated`, is: apierrors.IsForbidden},
		"update in ending":          {r: request{obj: cm("ending"), old: cm("ending")}},
		"delete in ending":          {r: request{old: cm("ending"), op: admission.Delete}},
		"cluster scope":             {r: request{obj: &corev1.PersistentVolume{ObjectMeta: objectMeta("", "pv")}}},
		"a namespace":               {r: request{obj: &corev1.Namespace{ObjectMeta: objectMeta("", "new")}, ns: "new"}},
		"eviction in ending":        {r: request{obj: pod(func(p *corev1.Pod) { p.Namespace = "ending" }), sub: "eviction"}, want: "being terminated"},
		"local review":              {r: request{obj: cm("nowhere"), resource: localReviews.WithVersion("v1")}},
		"delete default":            {r: request{old: &corev1.Namespace{ObjectMeta: objectMeta("", "default")}, op: admission.Delete}, want: `namespaces "default" is forbidden: this namespace may not be deleted`, is: apierrors.IsForbidden},
		"delete kube-system":        {r: request{old: &corev1.Namespace{ObjectMeta: objectMeta("", "kube-system")}, op: admission.Delete}, want: "may not be deleted"},
		"delete kube-public":        {r: request{old: &corev1.Namespace{ObjectMeta: objectMeta("", "kube-public")}, op: admission.Delete}, want: "may not be deleted"},
		"delete another":            {r: request{old: &corev1.Namespace{ObjectMeta: objectMeta("", "dev")}, op: admission.Delete}},
		"status of a pod in ending": {r: request{obj: pod(nil), old: pod(nil), sub: "status"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := admit(t, c, test.r)
			check(t, err, test.want)
			if test.is != nil && !test.is(err) {
				t.Errorf("wrong reason: %v", apierrors.ReasonForError(err))
			}
			if test.is != nil && name == "ending" && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				t.Error("the cause is missing")
			}
		})
	}
}

// TestNamespaceJustDeleted has a cache that doesn't know yet that the namespace is ending.
func TestNamespaceJustDeleted(t *testing.T) {
	c := config()
	c.NamespacesLatest = func(context.Context, string, string) (*corev1.Namespace, error) {
		return &corev1.Namespace{Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}, nil
	}
	chain := newChain(t, c)
	cm := request{obj: &corev1.ConfigMap{ObjectMeta: objectMeta("dev", "cm")}}
	check(t, admit(t, chain, cm), "")
	check(t, admit(t, chain, request{old: &corev1.Namespace{ObjectMeta: objectMeta("", "dev")}, op: admission.Delete}), "")
	check(t, admit(t, chain, cm), "being terminated")
}

func TestServiceAccount(t *testing.T) {
	c := newChain(t, config(
		&corev1.ServiceAccount{ObjectMeta: objectMeta("dev", "puller"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "reg"}}},
		&corev1.ServiceAccount{ObjectMeta: objectMeta("dev", "quiet"), AutomountServiceAccountToken: ptr.To(false)},
		&corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "strict", Annotations: map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}},
			Secrets:    []corev1.ObjectReference{{Name: "mine"}},
		},
	))
	mounts := func(p *corev1.Pod) int {
		n := 0
		for _, containers := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range containers {
				if mountsAt(&containers[i], tokenMountPath) {
					n++
				}
			}
		}
		return n
	}
	with := func(account string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.ServiceAccountName = account }
	}
	mirror := func(change func(*corev1.Pod)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			if change != nil {
				change(p)
			}
		}
	}
	secretVolume := func(name string) corev1.Volume {
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}
	}
	for name, test := range map[string]struct {
		change  func(*corev1.Pod)
		want    string
		account string
		mounts  int
		volumes int
		pull    []corev1.LocalObjectReference
	}{
		"default":      {account: "default", mounts: 1, volumes: 1},
		"deprecated":   {change: func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "puller" }, account: "puller", mounts: 1, volumes: 1, pull: []corev1.LocalObjectReference{{Name: "reg"}}},
		"missing":      {change: with("gone"), want: `pods "p" is forbidden: error looking up service account dev/gone: serviceaccount "gone" not found`},
		"pull secrets": {change: with("puller"), account: "puller", mounts: 1, volumes: 1, pull: []corev1.LocalObjectReference{{Name: "reg"}}},
		"own pull secrets": {change: func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.ImagePullSecrets = "puller", []corev1.LocalObjectReference{{Name: "own"}}
		}, account: "puller", mounts: 1, volumes: 1, pull: []corev1.LocalObjectReference{{Name: "own"}}},
		"account says no": {change: with("quiet"), account: "quiet"},
		"pod says no":     {change: func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = ptr.To(false) }, account: "default"},
		"pod says yes":    {change: func(p *corev1.Pod) { with("quiet")(p); p.Spec.AutomountServiceAccountToken = ptr.To(true) }, account: "quiet", mounts: 1, volumes: 1},
		"init containers": {change: func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "i"}, {Name: "j"}} }, account: "default", mounts: 3, volumes: 1},
		"mounted by hand": {change: func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: tokenMountPath}}
		}, account: "default", mounts: 1},
		"volume there":    {change: func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-abcde"}} }, account: "default", mounts: 1, volumes: 1},
		"mirror":          {change: mirror(nil)},
		"mirror, account": {change: mirror(with("default")), want: "a mirror pod may not reference service accounts"},
		"mirror, secret":  {change: mirror(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{secretVolume("x")} }), want: "a mirror pod may not reference secrets"},
		"mirror, token":   {change: mirror(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{VolumeSource: tokenVolume()}} }), want: "a mirror pod may not use ServiceAccountToken volume projections"},
		"strict, own":     {change: func(p *corev1.Pod) { with("strict")(p); p.Spec.Volumes = []corev1.Volume{secretVolume("mine")} }, account: "strict", mounts: 1, volumes: 2},
		"strict, volume":  {change: func(p *corev1.Pod) { with("strict")(p); p.Spec.Volumes = []corev1.Volume{secretVolume("other")} }, want: `volume with secret.secretName="other" is not allowed because service account strict does not reference that secret`},
		"strict, env": {change: func(p *corev1.Pod) {
			with("strict")(p)
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "other"}}}}}
		}, want: `container c with envVar E referencing secret.secretName="other" is not allowed`},
		"strict, pull": {change: func(p *corev1.Pod) {
			with("strict")(p)
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "reg"}}
		}, want: `imagePullSecrets[0].name="reg" is not allowed because service account strict does not reference that imagePullSecret`},
		"generated a name": {change: func(p *corev1.Pod) { p.Name, p.GenerateName, p.Spec.ServiceAccountName = "", "web-", "gone" }, want: `pods "web-" is forbidden: error looking up`},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(test.change)
			err := admit(t, c, request{obj: p})
			check(t, err, test.want)
			if err != nil {
				return
			}
			if p.Spec.ServiceAccountName != test.account || p.Spec.DeprecatedServiceAccount != test.account || mounts(p) != test.mounts || len(p.Spec.Volumes) != test.volumes || !reflect.DeepEqual(p.Spec.ImagePullSecrets, test.pull) {
				t.Errorf("got account %q, %d mounts, volumes %v, pull secrets %v", p.Spec.ServiceAccountName, mounts(p), p.Spec.Volumes, p.Spec.ImagePullSecrets)
			}
		})
	}

	p := pod(nil)
	check(t, admit(t, c, request{obj: p}), "")
	volume := p.Spec.Volumes[0]
	if len(volume.Name) != len(tokenVolumePrefix)+5 || !reflect.DeepEqual(p.Spec.Containers[0].VolumeMounts, []corev1.VolumeMount{{Name: volume.Name, ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}) {
		t.Errorf("volume %s, mounts %v", volume.Name, p.Spec.Containers[0].VolumeMounts)
	}
	want := corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: ptr.To[int32](420), Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](3607), Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
	}}}
	if !reflect.DeepEqual(volume.VolumeSource, want) {
		t.Errorf("got %+v", volume.VolumeSource)
	}
}

func TestPodSecurity(t *testing.T) {
	labelled := func(name, mode, level string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pod-security.kubernetes.io/" + mode: level}}}
	}
	enforced := labelled("locked", "enforce", "baseline")
	c := newChain(t, config(enforced, &corev1.ServiceAccount{ObjectMeta: objectMeta("locked", "default")}))
	privileged := func(ns string) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Namespace = ns
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		})
	}
	err := admit(t, c, request{obj: privileged("locked")})
	check(t, err, `pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`)
	if !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	check(t, admit(t, c, request{obj: privileged("dev")}), "")
	check(t, admit(t, c, request{obj: pod(func(p *corev1.Pod) { p.Namespace = "locked" })}), "")
	check(t, admit(t, c, request{obj: labelled("x", "enforce", "nonsense"), ns: "x"}), "pod-security.kubernetes.io/enforce")
	check(t, admit(t, c, request{obj: labelled("x", "enforce", "restricted"), ns: "x"}), "")
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := New(config()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPod(b *testing.B) {
	c, err := New(config())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		a := request{obj: pod(nil)}.attributes()
		if err := c.Admit(b.Context(), a, nil); err != nil {
			b.Fatal(err)
		}
		if err := c.Validate(b.Context(), a, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNothingToDo(b *testing.B) {
	c, err := New(config())
	if err != nil {
		b.Fatal(err)
	}
	cm := &corev1.ConfigMap{ObjectMeta: objectMeta("dev", "x")}
	a := request{obj: cm, old: cm}.attributes()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Admit(b.Context(), a, nil); err != nil {
			b.Fatal(err)
		}
	}
}
