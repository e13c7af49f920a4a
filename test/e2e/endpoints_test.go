//lint:file-ignore SA1019 Endpoints are deprecated, and served as long as Kubernetes serves them.

package e2e

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// [sig-network] EndpointSlice should have Endpoints and EndpointSlices pointing to API Server; Services should provide secure
// master service; should find a service from listing all namespaces.
func TestEndpointsOfServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	all, err := shared.client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	must(t, err)
	at := slices.IndexFunc(all.Items, func(s corev1.Service) bool { return s.Namespace == "default" && s.Name == "kubernetes" })
	if at < 0 || all.Items[at].Spec.Ports[0].Port != 443 || all.Items[at].Spec.Ports[0].Name != "https" {
		t.Fatalf("services %+v", all.Items)
	}
	endpoints, err := shared.client.CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	must(t, err)
	list, err := shared.client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	must(t, err)
	if len(endpoints.Subsets) != 1 || len(list.Items) != 1 {
		t.Fatalf("endpoints %+v, slices %+v", endpoints.Subsets, list.Items)
	}
	subset, slice := endpoints.Subsets[0], list.Items[0]
	if slice.Name != "kubernetes" || len(subset.Addresses) != 1 || len(slice.Endpoints) != 1 || subset.Addresses[0].IP != slice.Endpoints[0].Addresses[0] ||
		subset.Ports[0].Port != *slice.Ports[0].Port || subset.Ports[0].Name != "https" || *slice.Ports[0].Name != "https" {
		t.Errorf("endpoints %+v, slice %+v", subset, slice)
	}
}

// [sig-network] EndpointSlice should create and delete Endpoints and EndpointSlices for a Service with a selector specified;
// should create Endpoints and EndpointSlices for Pods matching a Service.
func TestEndpointSlices(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, services := t.Context(), s.client.CoreV1().Services(s.namespace)
	ports := []corev1.ServicePort{{Name: "example", Port: 80}}
	s.service("empty", corev1.ServiceSpec{Selector: map[string]string{"does-not-match": "endpoints"}, Ports: ports})
	s.slices("empty", 1)
	must(t, services.Delete(ctx, "empty", metav1.DeleteOptions{}))
	s.slices("empty", 0)
	s.eventually("the end of the Endpoints", func() error {
		if _, err := s.client.CoreV1().Endpoints(s.namespace).Get(ctx, "empty", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("they are there: %w", err)
		}
		return nil
	})

	// Endpoints are there as soon as a pod has an address, ready or not.
	one, two := testPod("pod1", map[string]string{"foo": "bar"}, "pause"), testPod("pod2", map[string]string{"foo": "bar"}, "pause")
	one.Labels["only"] = "one"
	for _, p := range []*corev1.Pod{one, two} {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "example", ContainerPort: 3000}}
	}
	s.run(one, two)
	s.service("one", corev1.ServiceSpec{Selector: map[string]string{"only": "one"}, PublishNotReadyAddresses: true, Ports: []corev1.ServicePort{{Name: "example", Port: 80, TargetPort: ports[0].TargetPort}}})
	s.service("both", corev1.ServiceSpec{Selector: map[string]string{"foo": "bar"}, Ports: ports})
	s.endpoints("one", "example 80 pod1")
	s.endpoints("both", "example 80 pod1", "example 80 pod2")
	slice := s.slices("both", 1)[0]
	if slice.AddressType != discoveryv1.AddressTypeIPv4 || slice.Labels[discoveryv1.LabelManagedBy] != "endpointslice-controller.k8s.io" || len(slice.OwnerReferences) != 1 || slice.OwnerReferences[0].Name != "both" {
		t.Errorf("slice %+v", slice)
	}
	node, _ := s.node()
	for _, e := range slice.Endpoints {
		if e.NodeName == nil || *e.NodeName != node.Name || !*e.Conditions.Serving || *e.Conditions.Terminating {
			t.Errorf("endpoint %+v", e)
		}
	}
}

// slices waits until a service has as many slices.
func (s *session) slices(service string, n int) []discoveryv1.EndpointSlice {
	s.t.Helper()
	var list *discoveryv1.EndpointSliceList
	s.eventually(fmt.Sprintf("%d slices of %s", n, service), func() (err error) {
		list, err = s.client.DiscoveryV1().EndpointSlices(s.namespace).List(s.t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
		if err == nil && len(list.Items) != n {
			err = fmt.Errorf("%d slices: %+v", len(list.Items), list.Items)
		}
		return err
	})
	return list.Items
}

// [sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete. A service
// without a selector is reached by what the user says.
func TestEndpointSliceMirroring(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.CoreV1().Endpoints(s.namespace)
	pods := s.run(testPod("client", nil), testPod("one", nil), testPod("two", nil))
	client, one, two := pods[0].Status.PodIP, pods[1].Status.PodIP, pods[2].Status.PodIP
	svc := s.service("custom", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "example", Port: 80}}})
	subset := corev1.EndpointSubset{Addresses: []corev1.EndpointAddress{{IP: one}}, Ports: []corev1.EndpointPort{{Name: "example", Port: 8080, Protocol: corev1.ProtocolTCP}}}
	_, err := api.Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Labels: map[string]string{"own": "label"}}, Subsets: []corev1.EndpointSubset{subset}}, metav1.CreateOptions{})
	must(t, err)
	slice := s.slices(svc.Name, 1)[0]
	if slice.Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" || slice.Labels["own"] != "label" || len(slice.OwnerReferences) != 1 || slice.OwnerReferences[0].Kind != "Endpoints" ||
		len(slice.Endpoints) != 1 || slice.Endpoints[0].Addresses[0] != one || *slice.Ports[0].Port != 8080 || *slice.Ports[0].Name != "example" {
		t.Errorf("slice %+v", slice)
	}
	s.reaches(client, "http", svc.Spec.ClusterIP, 80, "one")

	update(t, func() (*corev1.Endpoints, error) { return api.Get(ctx, svc.Name, metav1.GetOptions{}) },
		func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = two },
		func(e *corev1.Endpoints) (*corev1.Endpoints, error) {
			return api.Update(ctx, e, metav1.UpdateOptions{})
		})
	s.reaches(client, "http", svc.Spec.ClusterIP, 80, "two")
	s.eventually("the slice follows", func() error {
		if e := s.slices(svc.Name, 1)[0].Endpoints; len(e) != 1 || e[0].Addresses[0] != two {
			return fmt.Errorf("endpoints %+v", e)
		}
		return nil
	})
	must(t, api.Delete(ctx, svc.Name, metav1.DeleteOptions{}))
	s.slices(svc.Name, 0)
	s.unreachable(client, "http", svc.Spec.ClusterIP, 80)
}

// [sig-network] Services should test the lifecycle of an Endpoint.
func TestEndpointsLifecycle(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.CoreV1().Endpoints(s.namespace)
	selector := metav1.ListOptions{LabelSelector: "test-endpoint-static=true"}
	w, err := api.Watch(ctx, selector)
	must(t, err)
	defer w.Stop()
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "testservice", Labels: map[string]string{"test-endpoint-static": "true"}}, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "10.0.0.24"}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
	}}}
	_, err = api.Create(ctx, e, metav1.CreateOptions{})
	must(t, err)
	expect[*corev1.Endpoints](t, w, watch.Added, nil)
	found, err := s.client.CoreV1().Endpoints("").List(ctx, selector)
	must(t, err)
	if len(found.Items) != 1 || found.Items[0].Namespace != s.namespace {
		t.Errorf("found %+v", found.Items)
	}
	e = &found.Items[0]
	e.Labels["test-service"] = "updated"
	_, err = api.Update(ctx, e, metav1.UpdateOptions{})
	must(t, err)
	expect(t, w, watch.Modified, func(e *corev1.Endpoints) bool { return e.Labels["test-service"] == "updated" })
	_, err = api.Patch(ctx, e.Name, mergePatch, []byte(`{"metadata":{"labels":{"test-service":"patched"}},"subsets":[{"addresses":[{"ip":"10.0.0.25"}],"ports":[{"name":"http-test","port":8080}]}]}`), metav1.PatchOptions{})
	must(t, err)
	expect(t, w, watch.Modified, func(e *corev1.Endpoints) bool {
		return e.Labels["test-service"] == "patched" && e.Subsets[0].Addresses[0].IP == "10.0.0.25" && e.Subsets[0].Ports[0].Port == 8080 && e.Subsets[0].Ports[0].Name == "http-test"
	})
	must(t, api.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
	expect[*corev1.Endpoints](t, w, watch.Deleted, nil)
	if _, err := api.Get(ctx, e.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after its deletion: %v", err)
	}
}
