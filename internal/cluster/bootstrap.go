package cluster

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/apiserver/admission"
)

// bootstrap makes the objects that every cluster has from the start, and brings those up to date that tell where the API is.
func (s *server) bootstrap(ctx context.Context, c kubernetes.Interface) error {
	for _, name := range []string{metav1.NamespaceSystem, metav1.NamespaceDefault, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := create(ctx, c.CoreV1().Namespaces(), ns); err != nil {
			return fmt.Errorf("making namespace %s: %w", name, err)
		}
	}
	info, err := s.clusterInfo()
	if err != nil {
		return err
	}
	// The rest is independent of each other.
	group, ctx := errgroup.WithContext(ctx)
	do := func(what string, fn func() error) {
		group.Go(func() error {
			if err := fn(); err != nil {
				return fmt.Errorf("making %s: %w", what, err)
			}
			return nil
		})
	}
	for _, class := range admission.SystemPriorityClasses() {
		do("priority class "+class.Name, func() error { return create(ctx, c.SchedulingV1().PriorityClasses(), class) })
	}
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{s.ServiceCIDR}}}
	do("service range", func() error { return create(ctx, c.NetworkingV1().ServiceCIDRs(), cidr) })
	for _, cm := range []*corev1.ConfigMap{info, s.extensionAuthentication()} {
		do("config map "+cm.Name, func() error { return put(ctx, c.CoreV1().ConfigMaps(cm.Namespace), cm, sameData) })
	}
	do("role of cluster-info", func() error { return create(ctx, c.RbacV1().Roles(metav1.NamespacePublic), clusterInfoRole()) })
	do("role binding of cluster-info", func() error {
		return create(ctx, c.RbacV1().RoleBindings(metav1.NamespacePublic), clusterInfoBinding())
	})
	do("service kubernetes", func() error { return s.kubernetesService(ctx, c) })
	return group.Wait()
}

// creator, and writer, are what clients of client-go for one kind have in common.
type creator[T runtime.Object] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
}

type writer[T runtime.Object] interface {
	creator[T]
	Get(context.Context, string, metav1.GetOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// create creates an object unless it is there.
func create[T runtime.Object](ctx context.Context, c creator[T], obj T) error {
	_, err := c.Create(ctx, obj, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// put creates an object, or replaces it when it is not the same in what matters.
func put[T interface {
	runtime.Object
	metav1.Object
}](ctx context.Context, c writer[T], obj T, same func(a, b T) bool) error {
	old, err := c.Get(ctx, obj.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return create(ctx, c, obj)
	}
	if err != nil || same(old, obj) {
		return err
	}
	obj.SetResourceVersion(old.GetResourceVersion())
	_, err = c.Update(ctx, obj, metav1.UpdateOptions{})
	return err
}

func sameData(a, b *corev1.ConfigMap) bool { return apiequality.Semantic.DeepEqual(a.Data, b.Data) }

// clusterInfo is what a client without credentials may know: where the API is, and by which authority its certificate is signed.
func (s *server) clusterInfo() (*corev1.ConfigMap, error) {
	kubeconfig, err := publicKubeconfig(fmt.Sprintf("https://%s", netip.AddrPortFrom(s.net.advertise, uint16(s.SecurePort))), s.pki.CAPEM())
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: "cluster-info"},
		Data:       map[string]string{"kubeconfig": string(kubeconfig)},
	}, nil
}

func clusterInfoRole() *rbacv1.Role {
	return &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: clusterInfoAccess},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"cluster-info"}}},
	}
}

func clusterInfoBinding() *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: clusterInfoAccess},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: clusterInfoAccess},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:anonymous"}},
	}
}

// clusterInfoAccess is kubeadm's name for it.
const clusterInfoAccess = "kubeadm:bootstrap-signer-clusterinfo"

// extensionAuthentication tells aggregated API servers whom to trust.
func (s *server) extensionAuthentication() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"},
		Data: map[string]string{
			"client-ca-file":                     string(s.pki.CAPEM()),
			"requestheader-client-ca-file":       string(s.pki.FrontProxy.PEM()),
			"requestheader-allowed-names":        `["front-proxy-client"]`,
			"requestheader-username-headers":     `["X-Remote-User"]`,
			"requestheader-uid-headers":          `["X-Remote-Uid"]`,
			"requestheader-group-headers":        `["X-Remote-Group"]`,
			"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
		},
	}
}

// kubernetesService makes the Service by which pods reach the API, and what it leads to.
func (s *server) kubernetesService(ctx context.Context, c kubernetes.Interface) error {
	const name = "kubernetes"
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       s.net.kubernetesIP.String(),
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports:           []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt(s.SecurePort)}},
		},
	}
	err := put(ctx, c.CoreV1().Services(svc.Namespace), svc, func(a, b *corev1.Service) bool {
		return a.Spec.ClusterIP == b.Spec.ClusterIP && apiequality.Semantic.DeepEqual(a.Spec.Ports, b.Spec.Ports)
	})
	if err != nil {
		return err
	}
	// The mirror of these Endpoints would be the slice below.
	//lint:ignore SA1019 kubectl get endpoints shows it
	endpoints := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		//lint:ignore SA1019 see above
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: s.net.advertise.String()}},
			Ports:     []corev1.EndpointPort{{Name: "https", Port: int32(s.SecurePort), Protocol: corev1.ProtocolTCP}},
		}},
	}
	//lint:ignore SA1019 see above
	err = put(ctx, c.CoreV1().Endpoints(endpoints.Namespace), endpoints, func(a, b *corev1.Endpoints) bool {
		return apiequality.Semantic.DeepEqual(a.Subsets, b.Subsets)
	})
	if err != nil {
		return err
	}
	family := discoveryv1.AddressTypeIPv4
	if s.net.advertise.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{s.net.advertise.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(s.SecurePort)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	return put(ctx, c.DiscoveryV1().EndpointSlices(slice.Namespace), slice, func(a, b *discoveryv1.EndpointSlice) bool {
		return apiequality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) && apiequality.Semantic.DeepEqual(a.Ports, b.Ports)
	})
}
