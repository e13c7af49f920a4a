package controller_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/controllertest"
)

func TestMain(m *testing.M) { controllertest.Main(m) }

var configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")

// marker is a controller that marks config maps, after failing twice on each.
func marker(failures *atomic.Int32) controller.Controller {
	return controller.Controller{
		Name: "marker", Workers: 2,
		Reads:  []schema.GroupVersionResource{configMaps},
		Writes: []rbacv1.PolicyRule{controller.Rule("", []string{"configmaps"}, "update")},
		Setup: func(env *controller.Env) (controller.Sync, error) {
			maps := env.Informers.Core().V1().ConfigMaps()
			controller.WatchKeys[*corev1.ConfigMap](env, maps.Informer())
			return func(ctx context.Context, key string) error {
				switch failures.Add(1) {
				case 1:
					return errors.New("first")
				case 2:
					panic("second")
				case 3:
					return fmt.Errorf("wrapped: %w", controller.ErrStale)
				}
				namespace, name := controller.SplitKey(key)
				m, err := maps.Lister().ConfigMaps(namespace).Get(name)
				if err != nil || m.Data["mark"] != "" {
					return nil
				}
				m = m.DeepCopy()
				m.Data = map[string]string{"mark": "yes"}
				env.Events.Event(m, corev1.EventTypeNormal, "Marked", "Marked it")
				_, err = env.Client.CoreV1().ConfigMaps(namespace).Update(ctx, m, metav1.UpdateOptions{})
				return err
			}, nil
		},
	}
}

// A controller that fails and panics is called again; it acts by its own identity, with the rights that it declares; its
// events and metrics are there.
func TestManager(t *testing.T) {
	var failures atomic.Int32
	metrics := prometheus.NewPedanticRegistry()
	c := controllertest.StartWith(t, func(config *controller.Config) { config.Registerer = metrics }, marker(&failures))
	if _, err := c.Admin.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the mark", func(ctx context.Context) (*corev1.ConfigMap, error) {
		return c.Admin.CoreV1().ConfigMaps("default").Get(ctx, "a", metav1.GetOptions{})
	}, func(m *corev1.ConfigMap) bool { return m.Data["mark"] == "yes" })
	controllertest.Wait(t, c, "the event", func(ctx context.Context) (*corev1.EventList, error) {
		return c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
	}, func(l *corev1.EventList) bool {
		return len(l.Items) == 1 && l.Items[0].Source.Component == "marker-controller" && l.Items[0].Reason == "Marked"
	})
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, f := range families {
		names += f.GetName() + " "
		if f.GetName() == "workqueue_retries_total" && f.GetMetric()[0].GetCounter().GetValue() != 3 {
			t.Errorf("retries are %v", f.GetMetric())
		}
	}
	want := "workqueue_adds_total workqueue_depth workqueue_longest_running_processor_seconds workqueue_queue_duration_seconds " +
		"workqueue_retries_total workqueue_unfinished_work_seconds workqueue_work_duration_seconds "
	if names != want {
		t.Errorf("metrics are %s", names)
	}
}

// Reading what isn't declared ends the setup.
func TestUndeclaredInput(t *testing.T) {
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "controller greedy reads *v1.Secret") {
			t.Errorf("panicked with %v", p)
		}
	}()
	c := controllertest.Start(t)
	_, err := controller.NewManager(controller.Config{REST: c.REST, Informers: c.Informers}, []controller.Controller{{
		Name: "greedy",
		Setup: func(env *controller.Env) (controller.Sync, error) {
			env.Informers.Core().V1().Secrets().Informer()
			return nil, nil
		},
	}})
	t.Errorf("the manager was made: %v", err)
}

func TestRoles(t *testing.T) {
	roles, bindings := controller.Roles([]controller.Controller{{
		Name: "x",
		Reads: []schema.GroupVersionResource{
			{Group: "apps", Version: "v1", Resource: "replicasets"}, {Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "nodes"},
		},
		Writes: []rbacv1.PolicyRule{controller.Rule("", []string{"pods"}, "delete")},
	}})
	got := ""
	for _, r := range roles[0].Rules {
		got += fmt.Sprint(r.APIGroups, r.Resources, r.Verbs, "; ")
	}
	if want := "[] [nodes pods] [get list watch]; [apps] [replicasets] [get list watch]; [] [pods] [delete]; "; got != want {
		t.Errorf("rules are %q, want %q", got, want)
	}
	if roles[0].Name != "system:controller:x-controller" || bindings[0].Name != roles[0].Name || bindings[0].RoleRef.Name != roles[0].Name {
		t.Errorf("names are %s, %s", roles[0].Name, bindings[0].Name)
	}
	if s := bindings[0].Subjects[0]; s.Kind != "ServiceAccount" || s.Namespace != "kube-system" || s.Name != "x-controller" {
		t.Errorf("the subject is %+v", s)
	}
}

// Collectors and publishers have upstream's names.
func TestRoleNames(t *testing.T) {
	roles, _ := controller.Roles([]controller.Controller{{Name: "deployment"}, {Name: "pod-garbage-collector"}, {Name: "root-ca-cert-publisher"}})
	got := roles[0].Name + " " + roles[1].Name + " " + roles[2].Name
	if want := "system:controller:deployment-controller system:controller:pod-garbage-collector system:controller:root-ca-cert-publisher"; got != want {
		t.Errorf("names are %s", got)
	}
}

// Of two managers one works; when it ends, the other takes over.
func TestLeaderElection(t *testing.T) {
	var running atomic.Int32
	lone := controller.Controller{
		Name: "lone", Reads: []schema.GroupVersionResource{configMaps},
		Setup: func(env *controller.Env) (controller.Sync, error) {
			controller.WatchKeys[*corev1.ConfigMap](env, env.Informers.Core().V1().ConfigMaps().Informer())
			env.Go(func(ctx context.Context) {
				if running.Add(1) > 1 {
					t.Error("two managers work at the same time")
				}
				<-ctx.Done()
				running.Add(-1)
			})
			return func(context.Context, string) error { return nil }, nil
		},
	}
	c := controllertest.Start(t)
	run := func(name string) (stop context.CancelFunc, ended chan error) {
		m, err := controller.NewManager(controller.Config{
			REST: c.REST, Informers: c.Informers, Log: controllertest.Quiet(),
			LeaderElection: &controller.LeaderElection{
				Identity: name, LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 100 * time.Millisecond,
			},
		}, []controller.Controller{lone})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended = make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		return stop, ended
	}
	holder := func(want string) {
		t.Helper()
		controllertest.Wait(t, c, "the leadership of "+want, func(ctx context.Context) (string, error) {
			l, err := c.Admin.CoordinationV1().Leases("kube-system").Get(ctx, "kube-controller-manager", metav1.GetOptions{})
			if err != nil || l.Spec.HolderIdentity == nil || running.Load() != 1 {
				return "", err
			}
			return *l.Spec.HolderIdentity, nil
		}, func(got string) bool { return got == want })
	}
	stopA, endedA := run("a")
	holder("a")
	stopB, endedB := run("b")
	stopA()
	if err := <-endedA; err != nil {
		t.Errorf("a ended with %v", err)
	}
	holder("b")
	stopB()
	if err := <-endedB; err != nil {
		t.Errorf("b ended with %v", err)
	}
	if running.Load() != 0 {
		t.Error("Run returned before the controller ended")
	}
}
