// Package admission is the chain of built-in admission plugins, by upstream's names, in upstream's order.
//
// What flows in are requests that would change something, and the objects that decisions depend on, read from the store's
// caches; what flows out are completed objects and refusals. A plugin is one file: a Plugin value whose decision is a
// function of the request and of what it looked up. A request meets only the plugins that its resource and operation concern.
package admission

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	podsecurityapi "k8s.io/pod-security-admission/admission/api"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
)

// Config is what the plugins work with. Getters and listers read the cache, and give store.ErrNotFound for what is
// missing; one that is nil (its kind is not served) turns off the plugins that need it.
type Config struct {
	Log *slog.Logger

	// Enable and Disable are names of plugins, on top of DefaultPlugins.
	Enable, Disable []string

	Namespaces       lookup.Getter[*corev1.Namespace]
	NamespacesLatest lookup.Getter[*corev1.Namespace] // at least as new as the store
	ServiceAccounts  lookup.Getter[*corev1.ServiceAccount]
	Pods             lookup.Getter[*corev1.Pod]
	PodList          lookup.Lister[*corev1.Pod]
	Nodes            lookup.Getter[*corev1.Node]
	LimitRanges      lookup.Lister[*corev1.LimitRange]
	PriorityClasses  lookup.Getter[*schedulingv1.PriorityClass]
	PriorityClassSet lookup.Lister[*schedulingv1.PriorityClass]
	RuntimeClasses   lookup.Getter[*nodev1.RuntimeClass]
	StorageClasses   lookup.Lister[*storagev1.StorageClass]
	IngressClasses   lookup.Lister[*networkingv1.IngressClass]
	CSIDrivers       lookup.Getter[*storagev1.CSIDriver]

	// Authorizer answers what plugins ask about users.
	Authorizer authorizer.Authorizer
	// ResourceFor gives the resource of a kind, for owner references.
	ResourceFor func(schema.GroupVersionKind) (schema.GroupVersionResource, bool)
	// StorageProtection says that the controllers run which take the finalizers of StorageObjectInUseProtection away; without
	// them nothing that has one could ever be deleted, so the plugin is off.
	StorageProtection bool
	// PodSecurity are the defaults and exemptions of PodSecurity; nil: privileged, no exemptions.
	PodSecurity *podsecurityapi.PodSecurityConfiguration

	// Escalation checks writes of roles and bindings (rbac.Escalation). It can't be disabled.
	Escalation admission.ValidationInterface
	// Dynamic are policies and webhooks: they come after all built-in plugins but quota, because they must see what the others
	// made of an object, and what they refuse must not be counted.
	Dynamic []Plugin
}

// Target is what a request is about, as far as it decides which plugins are concerned.
type Target struct {
	schema.GroupResource
	Subresource string
	Operation   admission.Operation
}

// Is says whether the target is the resource itself (not a subresource), with one of the operations (none: any).
func (t Target) Is(gr schema.GroupResource, ops ...admission.Operation) bool {
	return t.GroupResource == gr && t.Subresource == "" && (len(ops) == 0 || slices.Contains(ops, t.Operation))
}

// Plugin is one plugin of the chain.
type Plugin struct {
	Name string
	// Applies says which requests the plugin is for. It is asked once for each target; everything else is up to Admit and Validate.
	Applies func(Target) bool
	// Admit may change the object; Validate may not. Either can be nil. Errors are Status errors.
	// Checks says that Admit changes nothing either: it is there to refuse before others do their work.
	Checks   bool
	Admit    func(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error
	Validate func(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error
}

// DefaultPlugins are on unless they are disabled: upstream's, and NodeRestriction, without which a node could do harm to
// others.
var DefaultPlugins = []string{
	"NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction", "TaintNodesByCondition", "PodSecurity", "Priority",
	"DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection", "PersistentVolumeClaimResize", "RuntimeClass",
	"CertificateApproval", "CertificateSigning", "CertificateSubjectRestriction", "DefaultIngressClass",
}

// builtin makes all plugins in their order. A nil plugin lacks what it needs.
func builtin(c *Config) ([]named, error) {
	podSecurity, err := newPodSecurity(c)
	if err != nil {
		return nil, err
	}
	return []named{
		{"NamespaceLifecycle", newNamespaceLifecycle(c)},
		{"LimitRanger", newLimitRanger(c)},
		{"ServiceAccount", newServiceAccount(c)},
		{"NodeRestriction", newNodeRestriction(c)},
		{"TaintNodesByCondition", newTaintNodesByCondition()},
		{"PodSecurity", podSecurity},
		{"Priority", newPriority(c)},
		{"DefaultTolerationSeconds", newDefaultTolerationSeconds()},
		{"ExtendedResourceToleration", newExtendedResourceToleration()},
		{"DefaultStorageClass", newDefaultStorageClass(c)},
		{"StorageObjectInUseProtection", newStorageObjectInUseProtection(c)},
		{"OwnerReferencesPermissionEnforcement", newOwnerReferences(c)},
		{"PersistentVolumeClaimResize", newClaimResize(c)},
		{"RuntimeClass", newRuntimeClass(c)},
		{"CertificateApproval", newCertificateApproval(c)},
		{"CertificateSigning", newCertificateSigning(c)},
		{"CertificateSubjectRestriction", newCertificateSubjectRestriction()},
		{"DefaultIngressClass", newDefaultIngressClass(c)},
		{"DenyServiceExternalIPs", newDenyServiceExternalIPs()},
	}, nil
}

type named struct {
	name   string
	plugin *Plugin
}

// Chain runs plugins. It implements admission.MutationInterface and admission.ValidationInterface, and is safe for
// concurrent use.
type Chain struct {
	plugins []Plugin

	mu    sync.Mutex // held to extend steps
	steps atomic.Pointer[map[Target]*steps]
}

// steps are the parts of the plugins that a target meets.
type steps struct {
	admit, validate []func(context.Context, admission.Attributes, admission.ObjectInterfaces) error
	mutates         bool // one of admit may change the object
}

// New makes the chain. It fails on names that no plugin has.
func New(c Config) (*Chain, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	all, err := builtin(&c)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Concat(c.Enable, c.Disable) {
		if !slices.ContainsFunc(all, func(n named) bool { return n.name == name }) {
			return nil, fmt.Errorf("there is no admission plugin %q: known are %s", name, strings.Join(pluginNames(all), ", "))
		}
	}
	chain := &Chain{}
	for _, n := range all {
		on := (slices.Contains(DefaultPlugins, n.name) || slices.Contains(c.Enable, n.name)) && !slices.Contains(c.Disable, n.name)
		switch {
		case !on:
		case n.plugin != nil:
			n.plugin.Name = n.name
			chain.plugins = append(chain.plugins, *n.plugin)
		case slices.Contains(c.Enable, n.name):
			return nil, fmt.Errorf("the admission plugin %s needs a kind that is not served or a controller that does not run", n.name)
		}
	}
	chain.plugins = append(chain.plugins, c.Dynamic...)
	if c.Escalation != nil {
		chain.plugins = append(chain.plugins, Plugin{
			Name: "RBACEscalation",
			Applies: func(t Target) bool {
				return t.Group == "rbac.authorization.k8s.io" && t.Subresource == "" && c.Escalation.Handles(t.Operation)
			},
			Validate: c.Escalation.Validate,
		})
	}
	chain.steps.Store(&map[Target]*steps{})
	return chain, nil
}

func pluginNames(all []named) []string {
	list := make([]string, len(all))
	for i, n := range all {
		list[i] = n.name
	}
	return list
}

// Plugins are the names of the plugins that run, in order.
func (c *Chain) Plugins() []string {
	list := make([]string, len(c.plugins))
	for i, p := range c.plugins {
		list[i] = p.Name
	}
	return list
}

// Mutates tells whether a plugin could change the object of such a request.
func (c *Chain) Mutates(a admission.Attributes) bool { return c.stepsFor(a).mutates }

// Handles implements admission.Interface.
func (c *Chain) Handles(admission.Operation) bool { return true }

// Admit implements admission.MutationInterface.
func (c *Chain) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	for _, admit := range c.stepsFor(a).admit {
		if err := admit(ctx, a, o); err != nil {
			return err
		}
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (c *Chain) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	for _, validate := range c.stepsFor(a).validate {
		if err := validate(ctx, a, o); err != nil {
			return err
		}
	}
	return nil
}

func (c *Chain) stepsFor(a admission.Attributes) *steps {
	t := Target{a.GetResource().GroupResource(), a.GetSubresource(), a.GetOperation()}
	if s := (*c.steps.Load())[t]; s != nil {
		return s
	}
	s := &steps{}
	for _, p := range c.plugins {
		if !p.Applies(t) {
			continue
		}
		if p.Admit != nil {
			s.admit = append(s.admit, p.Admit)
			s.mutates = s.mutates || !p.Checks
		}
		if p.Validate != nil {
			s.validate = append(s.validate, p.Validate)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := maps.Clone(*c.steps.Load()) // there are few targets, and each comes here about once
	m[t] = s
	c.steps.Store(&m)
	return s
}
