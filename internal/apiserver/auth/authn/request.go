package authn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/proa-k8s/proa/internal/store"
)

// The bounds of a token's life in seconds, and what it is when the request doesn't say.
const (
	minSeconds     = 10 * 60
	maxSeconds     = 1 << 32
	defaultSeconds = 60 * 60
)

// TokenRequest serves the creation of serviceaccounts/token.
func (t *Tokens) TokenRequest(ctx context.Context, namespace, name string, obj runtime.Object, options *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest: %T", obj))
	}
	account, err := t.objects.ServiceAccounts(ctx, namespace, name)
	if err != nil {
		return nil, notFound(err, corev1.Resource("serviceaccounts"), name)
	}
	if r.Name == "" {
		r.Name = account.Name
	}
	if r.Namespace == "" {
		r.Namespace = account.Namespace
	}
	if len(r.Spec.Audiences) == 0 {
		r.Spec.Audiences = t.audiences
	}
	if r.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultSeconds)
		r.Spec.ExpirationSeconds = &seconds
	}
	r.Spec.Attestations = nil // behind a feature gate that is off by default
	if errs := validateTokenRequest(r, namespace, name); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
	}
	var b binding
	if r.Spec.BoundObjectRef != nil {
		if err := t.bind(ctx, &b, account, r.Spec.BoundObjectRef); err != nil {
			return nil, err
		}
	}

	life := time.Duration(*r.Spec.ExpirationSeconds) * time.Second
	// What the answer says is what a client should go by, also when the token lives longer.
	expires := t.now().Add(life)
	if *r.Spec.ExpirationSeconds == projectedSeconds && t.forAPIServer(r.Spec.Audiences) {
		b.WarnAfter = jwt.NewNumericDate(expires)
		life = extendedLife
	}
	token, id, err := t.bound(account, r.Spec.Audiences, life, b)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if options == nil || len(options.DryRun) == 0 {
		audit.AddAuditAnnotation(ctx, serviceaccount.IssuedCredentialIDAuditAnnotationKey, credentialID(id))
	}
	r.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.Time{Time: expires}}
	return r, nil
}

// forAPIServer says whether a token is for nobody but the API server.
func (t *Tokens) forAPIServer(audiences []string) bool {
	own := make(map[string]bool, len(t.audiences))
	for _, a := range t.audiences {
		own[a] = true
	}
	for _, a := range audiences {
		if !own[a] {
			return false
		}
	}
	return true
}

func validateTokenRequest(r *authenticationv1.TokenRequest, namespace, name string) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "expirationSeconds")
	switch seconds := *r.Spec.ExpirationSeconds; {
	case seconds < minSeconds:
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	case seconds > maxSeconds:
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if r.Name != name {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), r.Name, "must match the service account name"))
	}
	if r.Namespace != namespace {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "namespace"), r.Namespace, "must match the service account namespace"))
	}
	return errs
}

// bind looks up the object that a token is to be bound to.
func (t *Tokens) bind(ctx context.Context, b *binding, account *corev1.ServiceAccount, ref *authenticationv1.BoundObjectReference) error {
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	var uid types.UID
	switch gvk.GroupKind() {
	case schema.GroupKind{Kind: "Pod"}:
		pod, err := t.objects.Pods(ctx, account.Namespace, ref.Name)
		if err != nil {
			return notFound(err, corev1.Resource("pods"), ref.Name)
		}
		if pod.Spec.ServiceAccountName != account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account.Name))
		}
		uid = pod.UID
		b.Pod = &reference{pod.Name, pod.UID}
		if pod.Spec.NodeName != "" {
			b.Node = &reference{Name: pod.Spec.NodeName} // told even if the node is gone
			switch node, err := t.objects.Nodes(ctx, "", pod.Spec.NodeName); {
			case err == nil:
				b.Node.UID = node.UID
			case !errors.Is(err, store.ErrNotFound):
				return apierrors.NewInternalError(err)
			}
		}
	case schema.GroupKind{Kind: "Secret"}:
		secret, err := t.objects.Secrets(ctx, account.Namespace, ref.Name)
		if err != nil {
			return notFound(err, corev1.Resource("secrets"), ref.Name)
		}
		uid = secret.UID
		b.Secret = &reference{secret.Name, secret.UID}
	case schema.GroupKind{Kind: "Node"}:
		node, err := t.objects.Nodes(ctx, "", ref.Name)
		if err != nil {
			return notFound(err, corev1.Resource("nodes"), ref.Name)
		}
		uid = node.UID
		b.Node = &reference{node.Name, node.UID}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if ref.UID != "" && ref.UID != uid {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, ref.Name, fmt.Errorf(
			"the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}

// notFound words the error of a getter for the client.
func notFound(err error, gr schema.GroupResource, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return apierrors.NewNotFound(gr, name)
	}
	return apierrors.NewInternalError(err)
}
