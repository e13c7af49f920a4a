// Package controller is the frame that every controller uses: a queue of keys and one function that brings what a key
// stands for closer to what is declared.
//
// What flows in is a list of Controller values, each of which declares the resources it watches and what it may write;
// what flows out are running workers, events, metrics, and the RBAC roles that follow from the declarations. A
// controller reads from the shared informers, whose objects it must not change, and writes by a client of its own
// identity, system:serviceaccount:kube-system:<name>-controller. One package per controller lies beneath this one;
// package builtin puts them together.
package controller

import (
	"context"
	"log/slog"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/proa-k8s/proa/internal/client"
)

// Controller declares a controller: what it is called, what it sees, what it may change, and how it is set up.
type Controller struct {
	// Name as upstream has it, without the suffix "-controller": "replicaset", "pod-garbage-collector". It names the queue
	// in metrics and, with the suffix unless it is a collector or publisher, the identity, the role
	// system:controller:<name>-controller, and the source of events.
	Name string

	// Reads are the resources that the controller watches. Informers of others are refused.
	Reads []schema.GroupVersionResource

	// Writes is what the controller may do beside reading its inputs, and beside recording events.
	Writes []rbacv1.PolicyRule

	// Workers is how many keys are worked on at the same time, never two workers on one key; 0 means one.
	Workers int

	// Setup registers handlers that put keys into env's queue, and returns the function that handles a key. Informers
	// are not filled yet when it is called, and are when the first key is handled.
	Setup func(env *Env) (Sync, error)
}

// Sync observes what key stands for, decides, and acts. It is idempotent and looks at the present state only, never at what
// happened. An error makes the frame try again, later each time.
type Sync func(ctx context.Context, key string) error

// Env is what the frame gives to a controller.
type Env struct {
	// Name is that of the controller.
	Name string
	// Client and REST carry the controller's identity.
	Client kubernetes.Interface
	REST   *rest.Config
	// Informers gives the informers of the declared inputs. Objects from listers are shared and read-only.
	Informers informers.SharedInformerFactory
	// Resources are all stored resources, for the controllers that work on every kind.
	Resources *client.Resources
	// Events records events in the name of the controller.
	Events record.EventRecorder
	// Queue holds the keys to be handled.
	Queue *Queue
	Clock clock.WithTicker
	Log   *slog.Logger

	synced     []cache.DoneChecker
	background []func(context.Context)
}

// Go has fn run beside the workers, after the informers are filled and before the first key is handled is not waited for.
// The context ends with the manager, which waits for fn to return.
func (e *Env) Go(fn func(context.Context)) { e.background = append(e.background, fn) }

// Key is the queue's key of an object: "<namespace>/<name>", or the name alone where there is no namespace.
func Key(obj interface {
	GetNamespace() string
	GetName() string
}) string {
	if ns := obj.GetNamespace(); ns != "" {
		return ns + "/" + obj.GetName()
	}
	return obj.GetName()
}

// SplitKey takes a key of Key apart.
func SplitKey(key string) (namespace, name string) {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil { // More than one slash: no object has such a key.
		return "", key
	}
	return namespace, name
}

// Object is a pointer to an API type.
type Object interface {
	comparable
	GetNamespace() string
	GetName() string
	GetResourceVersion() string
}

// Watch has handle called for everything that happens to the informer's objects: old is nil when obj was added, obj is
// nil when old was deleted. It is called after the lister shows the change, one event after the other.
func Watch[T Object](e *Env, informer cache.SharedIndexInformer, handle func(old, obj T)) {
	var none T
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { handle(none, obj.(T)) },
		UpdateFunc: func(old, obj any) { handle(old.(T), obj.(T)) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if old, ok := obj.(T); ok {
				handle(old, none)
			}
		},
	})
	if err != nil { // Only a stopped informer refuses handlers; Setup runs before any is started.
		panic("adding a handler for " + e.Name + ": " + err.Error())
	}
	e.synced = append(e.synced, registration.HasSyncedChecker())
}

// WatchKeys puts the key of every object that is added, changed or deleted into the queue.
func WatchKeys[T Object](e *Env, informer cache.SharedIndexInformer) {
	var none T
	Watch(e, informer, func(old, obj T) {
		if obj == none {
			obj = old
		}
		e.Queue.Add(Key(obj))
	})
}
