package admission

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	podsecurity "k8s.io/pod-security-admission/admission"
	podsecurityapi "k8s.io/pod-security-admission/admission/api"
	"k8s.io/pod-security-admission/api"
	podsecuritymetrics "k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

// newPodSecurity enforces the Pod Security Standards that namespaces ask for by labels.
func newPodSecurity(c *Config) (*Plugin, error) {
	if c.Namespaces == nil || c.PodList == nil {
		return nil, nil
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("loading the pod security standards: %w", err)
	}
	recorder := podsecuritymetrics.NewPrometheusRecorder(api.LatestVersion())
	recorder.MustRegister(func(all ...metrics.Registerable) {
		for _, m := range all {
			_ = legacyregistry.Register(m) // another server in this process has registered the same
		}
	})
	configuration := c.PodSecurity
	if configuration == nil {
		configuration = &podsecurityapi.PodSecurityConfiguration{Defaults: podsecurityapi.PodSecurityDefaults{
			Enforce: "privileged", EnforceVersion: "latest", Audit: "privileged", AuditVersion: "latest", Warn: "privileged", WarnVersion: "latest",
		}}
	}
	extractor := podsecurity.DefaultPodSpecExtractor{}
	delegate := &podsecurity.Admission{
		Configuration:    configuration,
		Evaluator:        evaluator,
		Metrics:          recorder,
		PodSpecExtractor: extractor,
		NamespaceGetter:  namespaceGetter(c.Namespaces),
		PodLister:        podLister(c.PodList),
	}
	if err := delegate.CompleteConfiguration(); err != nil {
		return nil, fmt.Errorf("reading the configuration of PodSecurity: %w", err)
	}
	if err := delegate.ValidateConfiguration(); err != nil {
		return nil, fmt.Errorf("reading the configuration of PodSecurity: %w", err)
	}
	return &Plugin{
		Applies: func(t Target) bool {
			return (t.Operation == admission.Create || t.Operation == admission.Update) &&
				(t.GroupResource == namespaces || extractor.HasPodSpec(t.GroupResource))
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			return podSecurityResult(ctx, a, delegate.Validate(ctx, podSecurityAttributes{a}))
		},
	}, nil
}

// podSecurityResult turns the library's answer into warnings, annotations of the audit log and an error.
func podSecurityResult(ctx context.Context, a admission.Attributes, r *admissionv1.AdmissionResponse) error {
	for _, w := range r.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	for k, v := range r.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, api.AuditAnnotationPrefix+k, v)
	}
	if r.Allowed {
		return nil
	}
	//lint:ignore ST1005 the words are upstream's
	err := admission.NewForbidden(a, errors.New("Not allowed by PodSecurity"))
	var status *apierrors.StatusError
	if r.Result == nil || !errors.As(err, &status) {
		return err
	}
	if r.Result.Message != "" {
		status.ErrStatus.Message = r.Result.Message
	}
	if r.Result.Reason != "" {
		status.ErrStatus.Reason = r.Result.Reason
	}
	if r.Result.Details != nil {
		status.ErrStatus.Details = r.Result.Details
	}
	if r.Result.Code != 0 {
		status.ErrStatus.Code = r.Result.Code
	}
	return status
}

// podSecurityAttributes shows a request in the library's terms.
type podSecurityAttributes struct{ admission.Attributes }

func (a podSecurityAttributes) GetResource() schema.GroupVersionResource {
	return a.Attributes.GetResource()
}
func (a podSecurityAttributes) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(a.Attributes.GetOperation())
}
func (a podSecurityAttributes) GetUserName() string { return a.GetUserInfo().GetName() }
func (a podSecurityAttributes) GetObject() (runtime.Object, error) {
	return a.Attributes.GetObject(), nil
}
func (a podSecurityAttributes) GetOldObject() (runtime.Object, error) {
	return a.Attributes.GetOldObject(), nil
}

type namespaceGetter lookup.Getter[*corev1.Namespace]

func (g namespaceGetter) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	ns, err := g(ctx, "", name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, apierrors.NewNotFound(namespaces, name)
	}
	return ns, err
}

type podLister lookup.Lister[*corev1.Pod]

func (l podLister) ListPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	return l(ctx, namespace)
}
