package rbac

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// object is a kind of the group.
type object interface {
	runtime.Object
	metav1.Object
}
