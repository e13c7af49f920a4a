package serviceaccount

import (
	"bytes"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/proa-k8s/proa/internal/controller"
)

// IssueToken makes the token of an account that is kept in the secret and never expires.
type IssueToken func(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error)

// NewTokens declares the controller that fills secrets of the type kubernetes.io/service-account-token, and deletes them
// with their account.
func NewTokens(ca []byte, issue IssueToken) controller.Controller {
	return controller.Controller{
		Name:    "tokens",
		Reads:   []schema.GroupVersionResource{accountsResource, secretsResource},
		Writes:  []rbacv1.PolicyRule{controller.Rule("", []string{"secrets"}, "delete", "update")},
		Workers: 2,
		Setup: func(env *controller.Env) (controller.Sync, error) {
			accounts := env.Informers.Core().V1().ServiceAccounts()
			secrets := env.Informers.Core().V1().Secrets()
			t := &tokens{env: env, ca: ca, issue: issue, accounts: accounts.Lister(), secrets: secrets.Lister()}
			controller.Watch(env, secrets.Informer(), func(_, s *corev1.Secret) {
				if s != nil && s.Type == corev1.SecretTypeServiceAccountToken {
					env.Queue.Add(controller.Key(s))
				}
			})
			controller.Watch(env, accounts.Informer(), func(old, a *corev1.ServiceAccount) {
				if old == nil || a == nil || a.UID != old.UID {
					t.wakeSecrets(old, a)
				}
			})
			return t.sync, nil
		},
	}
}

type tokens struct {
	env      *controller.Env
	ca       []byte
	issue    IssueToken
	accounts corelisters.ServiceAccountLister
	secrets  corelisters.SecretLister
}

// wakeSecrets handles the secrets of an account that came or went.
func (t *tokens) wakeSecrets(old, a *corev1.ServiceAccount) {
	if a == nil {
		a = old
	}
	secrets, err := t.secrets.Secrets(a.Namespace).List(labels.Everything())
	if err != nil {
		t.env.Log.Error("listing secrets", "err", err)
	}
	for _, s := range secrets {
		if s.Type == corev1.SecretTypeServiceAccountToken && s.Annotations[corev1.ServiceAccountNameKey] == a.Name {
			t.env.Queue.Add(controller.Key(s))
		}
	}
}

func (t *tokens) sync(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	secret, err := t.secrets.Secrets(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	account, err := t.account(ctx, secret)
	if err != nil {
		return err
	}
	if account == nil {
		err := t.env.Client.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(secret.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	wanted, err := t.fill(account, secret)
	if err != nil || wanted == nil {
		return err
	}
	_, err = t.env.Client.CoreV1().Secrets(namespace).Update(ctx, wanted, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// account gives the account that the secret is for, or nil if there is none; that is asked of the API, since the secret's
// life depends on it.
func (t *tokens) account(ctx context.Context, secret *corev1.Secret) (*corev1.ServiceAccount, error) {
	matches := func(a *corev1.ServiceAccount) bool {
		uid := secret.Annotations[corev1.ServiceAccountUIDKey]
		return uid == "" || uid == string(a.UID)
	}
	name := secret.Annotations[corev1.ServiceAccountNameKey]
	if a, err := t.accounts.ServiceAccounts(secret.Namespace).Get(name); err == nil && matches(a) {
		return a, nil
	}
	a, err := t.env.Client.CoreV1().ServiceAccounts(secret.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && !matches(a) {
		return nil, nil
	}
	return a, err
}

// fill gives the secret with what it lacks, or nil if it lacks nothing.
func (t *tokens) fill(account *corev1.ServiceAccount, secret *corev1.Secret) (*corev1.Secret, error) {
	if len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 &&
		bytes.Equal(secret.Data[corev1.ServiceAccountRootCAKey], t.ca) &&
		len(secret.Data[corev1.ServiceAccountNamespaceKey]) > 0 &&
		secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
		return nil, nil
	}
	out := secret.DeepCopy()
	if out.Annotations == nil {
		out.Annotations = make(map[string]string)
	}
	if out.Data == nil {
		out.Data = make(map[string][]byte)
	}
	out.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	out.Data[corev1.ServiceAccountRootCAKey] = t.ca
	if len(out.Data[corev1.ServiceAccountNamespaceKey]) == 0 {
		out.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
	}
	if len(out.Data[corev1.ServiceAccountTokenKey]) == 0 {
		token, err := t.issue(account, out)
		if err != nil {
			return nil, fmt.Errorf("issuing a token for %s: %w", controller.Key(account), err)
		}
		out.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	return out, nil
}
