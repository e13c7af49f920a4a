package endpointslice

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestOfService(t *testing.T) {
	informer := informers.NewSharedInformerFactory(fake.NewClientset(), 0).Discovery().V1().EndpointSlices().Informer()
	for range 2 { // each controller that reads slices asks for the index
		if err := IndexByService(informer); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []struct{ namespace, name, service, managedBy string }{
		{"a", "web-1", "web", managedBy}, {"a", "web-2", "web", "somebody"}, {"b", "web-1", "web", managedBy},
		{"a", "db-1", "db", managedBy}, {"a", "nobodys", "", managedBy},
	} {
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name, Labels: map[string]string{
			discoveryv1.LabelServiceName: s.service, discoveryv1.LabelManagedBy: s.managedBy,
		}}}
		if err := informer.GetIndexer().Add(slice); err != nil {
			t.Fatal(err)
		}
	}
	got, err := OfService(informer.GetIndexer(), "a", "web", managedBy)
	if err != nil || len(got) != 1 || got[0].Namespace != "a" || got[0].Name != "web-1" {
		t.Errorf("got %v, %v", got, err)
	}
}
