package rbac

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/component-helpers/auth/rbac/reconciliation"

	"github.com/proa-k8s/proa/internal/store"
)

func labelSet(m map[string]string) labels.Set { return m }

// writers is how many objects are written at once: enough to fill one etcd batch after the other.
const writers = 32

// Reconcile brings the stored roles and bindings up to the policy, and returns how many it wrote: it makes what is missing
// and adds rules and subjects that are missing, but takes nothing away. Objects whose annotation autoupdate is "false" are
// left alone. It writes to the store directly, because it runs before anybody is allowed anything.
func Reconcile(ctx context.Context, c Caches, p *Policy) (int, error) {
	for _, cache := range []*store.Cache{c.ClusterRoles, c.Roles, c.ClusterRoleBindings, c.RoleBindings} {
		// One look at the store makes the cache good enough for all that follows.
		if _, err := cache.Get(ctx, "", "cluster-admin", -1); err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, fmt.Errorf("reading roles and bindings: %w", err)
		}
	}
	var jobs []func(context.Context) (bool, error)
	for _, o := range p.ClusterRoles {
		jobs = append(jobs, func(ctx context.Context) (bool, error) {
			return reconcile(ctx, c.ClusterRoles, o, missingInClusterRole)
		})
	}
	for _, o := range p.Roles {
		jobs = append(jobs, func(ctx context.Context) (bool, error) { return reconcile(ctx, c.Roles, o, missingInRole) })
	}
	for _, o := range p.ClusterRoleBindings {
		jobs = append(jobs, func(ctx context.Context) (bool, error) {
			return reconcile(ctx, c.ClusterRoleBindings, o, missingInClusterRoleBinding)
		})
	}
	for _, o := range p.RoleBindings {
		jobs = append(jobs, func(ctx context.Context) (bool, error) {
			return reconcile(ctx, c.RoleBindings, o, missingInRoleBinding)
		})
	}
	wrote := make([]bool, len(jobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i, job := range jobs {
		g.Go(func() (err error) {
			wrote[i], err = job(ctx)
			return err
		})
	}
	err := g.Wait()
	n := 0
	for _, w := range wrote {
		if w {
			n++
		}
	}
	return n, err
}

// reconcile brings one object up to what is expected. missing gives the object to write in the place of the existing one,
// or that very object when nothing is to be done.
func reconcile[T object](ctx context.Context, c *store.Cache, expected T, missing func(existing, expected T) (T, error)) (bool, error) {
	name := func() string { return fmt.Sprintf("reconciling %T %q", expected, expected.GetName()) }
	complete := func(cur *store.Object) (to T, changed bool, err error) {
		obj, err := cur.Decoded()
		if err != nil {
			return to, false, err
		}
		existing, ok := obj.(T)
		if !ok {
			return to, false, fmt.Errorf("the store holds a %T", obj)
		}
		to, err = missing(existing, expected)
		return to, any(to) != any(existing), err
	}
	for minRev := int64(0); ; minRev = -1 {
		cur, err := c.Get(ctx, expected.GetNamespace(), expected.GetName(), minRev)
		if errors.Is(err, store.ErrNotFound) {
			_, err = c.Create(ctx, expected.GetNamespace(), expected.GetName(), fresh(expected), nil)
			if errors.Is(err, store.ErrExists) { // another server was faster
				continue
			}
			if err == nil {
				return true, nil
			}
		}
		if err == nil {
			// The usual case of a restart: what the cache has is enough to see that there is nothing to do.
			var changed bool
			if _, changed, err = complete(cur); err == nil && !changed {
				return false, nil
			}
		}
		if err != nil {
			return false, fmt.Errorf("%s: %w", name(), err)
		}
		wrote := false
		_, err = c.Update(ctx, expected.GetNamespace(), expected.GetName(), func(cur *store.Object) (runtime.Object, []store.Op, error) {
			to, changed, err := complete(cur)
			wrote = changed
			return to, nil, err
		})
		if errors.Is(err, store.ErrNotFound) { // deleted in between
			continue
		}
		if err != nil {
			return false, fmt.Errorf("%s: %w", name(), err)
		}
		return wrote, nil
	}
}

// fresh is a copy with the metadata of a new object.
func fresh[T object](o T) T {
	c := o.DeepCopyObject().(T)
	c.SetUID(types.UID(uuid.NewUUID()))
	c.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	return c
}

// diffRole lets the library that kubectl auth reconcile uses find out what is missing.
func diffRole(existing, expected reconciliation.RuleOwner) (reconciliation.RuleOwner, bool, error) {
	r, err := (&reconciliation.ReconcileRoleOptions{Role: expected, Client: oneRole{existing}}).Run()
	if err != nil || r.Protected || r.Operation == reconciliation.ReconcileNone {
		return nil, false, err
	}
	return r.Role, true, nil
}

func diffBinding(existing, expected reconciliation.RoleBinding) (reconciliation.RoleBinding, bool, error) {
	r, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: expected, Client: oneBinding{existing}}).Run()
	if err != nil || r.Protected || r.Operation == reconciliation.ReconcileNone {
		return nil, false, err
	}
	return r.RoleBinding, true, nil
}

func missingInClusterRole(existing, expected *rbacv1.ClusterRole) (*rbacv1.ClusterRole, error) {
	if expected.AggregationRule != nil && existing.AggregationRule != nil {
		expected = expected.DeepCopy()
		expected.Rules = nil // the controller of aggregation keeps them
	}
	if marked(existing, expected) && equality.Semantic.DeepEqual(existing.Rules, expected.Rules) && equality.Semantic.DeepEqual(existing.AggregationRule, expected.AggregationRule) {
		return existing, nil // spares the comparison rule by rule
	}
	r, changed, err := diffRole(reconciliation.ClusterRoleRuleOwner{ClusterRole: existing}, reconciliation.ClusterRoleRuleOwner{ClusterRole: expected})
	if err != nil || !changed {
		return existing, err
	}
	return r.GetObject().(*rbacv1.ClusterRole), nil
}

// marked says that an object has all labels and annotations that it should have.
func marked(existing, expected object) bool {
	has := func(have, want map[string]string) bool {
		for k := range want {
			if _, ok := have[k]; !ok {
				return false
			}
		}
		return true
	}
	return has(existing.GetLabels(), expected.GetLabels()) && has(existing.GetAnnotations(), expected.GetAnnotations())
}

func missingInRole(existing, expected *rbacv1.Role) (*rbacv1.Role, error) {
	if marked(existing, expected) && equality.Semantic.DeepEqual(existing.Rules, expected.Rules) {
		return existing, nil
	}
	r, changed, err := diffRole(reconciliation.RoleRuleOwner{Role: existing}, reconciliation.RoleRuleOwner{Role: expected})
	if err != nil || !changed {
		return existing, err
	}
	return r.GetObject().(*rbacv1.Role), nil
}

func missingInClusterRoleBinding(existing, expected *rbacv1.ClusterRoleBinding) (*rbacv1.ClusterRoleBinding, error) {
	if existing.RoleRef != expected.RoleRef {
		return replaceBinding(existing, expected)
	}
	r, changed, err := diffBinding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: existing}, reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: expected})
	if err != nil || !changed {
		return existing, err
	}
	return r.GetObject().(*rbacv1.ClusterRoleBinding), nil
}

func missingInRoleBinding(existing, expected *rbacv1.RoleBinding) (*rbacv1.RoleBinding, error) {
	if existing.RoleRef != expected.RoleRef {
		return replaceBinding(existing, expected)
	}
	r, changed, err := diffBinding(reconciliation.RoleBindingAdapter{RoleBinding: existing}, reconciliation.RoleBindingAdapter{RoleBinding: expected})
	if err != nil || !changed {
		return existing, err
	}
	return r.GetObject().(*rbacv1.RoleBinding), nil
}

// replaceBinding puts a new object in the place of a binding that refers to another role, since that reference never
// changes in the life of a binding.
func replaceBinding[T object](existing, expected T) (T, error) {
	if existing.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false" {
		return existing, nil
	}
	return fresh(expected), nil
}

var errReadOnly = errors.New("only differences are computed")

// oneRole and oneBinding show the library one existing object and write nothing.
type oneRole struct{ reconciliation.RuleOwner }

func (o oneRole) Get(string, string) (reconciliation.RuleOwner, error) { return o.RuleOwner, nil }

func (o oneRole) Create(reconciliation.RuleOwner) (reconciliation.RuleOwner, error) {
	return nil, errReadOnly
}

func (o oneRole) Update(reconciliation.RuleOwner) (reconciliation.RuleOwner, error) {
	return nil, errReadOnly
}

type oneBinding struct{ reconciliation.RoleBinding }

func (o oneBinding) Get(string, string) (reconciliation.RoleBinding, error) {
	return o.RoleBinding, nil
}

func (o oneBinding) Create(reconciliation.RoleBinding) (reconciliation.RoleBinding, error) {
	return nil, errReadOnly
}

func (o oneBinding) Update(reconciliation.RoleBinding) (reconciliation.RoleBinding, error) {
	return nil, errReadOnly
}

func (o oneBinding) Delete(string, string, types.UID) error { return errReadOnly }
