package e2e

import (
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// [sig-auth] ServiceAccounts should mount an API token into pods; should allow opting out of API token automount.
func TestTokenInPod(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx := t.Context()
	_, err := s.client.CoreV1().ServiceAccounts(s.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "mount-test"}}, metav1.CreateOptions{})
	must(t, err)
	pod, without := testPod("mounts", nil, "pause"), testPod("opts-out", nil, "pause")
	pod.Spec.ServiceAccountName, without.Spec.ServiceAccountName = "mount-test", "mount-test"
	without.Spec.AutomountServiceAccountToken = ptr.To(false)
	s.run(pod, without)
	token, err := s.exec(pod.Name, "cat", accountDir+"/token")
	must(t, err)
	review, err := s.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	must(t, err)
	user := review.Status.User
	if !review.Status.Authenticated || user.Username != "system:serviceaccount:"+s.namespace+":mount-test" ||
		fmt.Sprint(user.Extra["authentication.kubernetes.io/pod-name"]) != "[mounts]" {
		t.Errorf("the token is of %+v: %s", user, review.Status.Error)
	}
	ca, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	must(t, err)
	for file, want := range map[string]string{"ca.crt": ca.Data["ca.crt"], "namespace": s.namespace} {
		if got, err := s.exec(pod.Name, "cat", accountDir+"/"+file); err != nil || got != want {
			t.Errorf("%s: %q %v", file, got, err)
		}
	}
	if out, err := s.exec(without.Name, "ls", accountDir); err == nil || !strings.Contains(err.Error(), "No such file or directory") {
		t.Errorf("the pod that opts out has %s, %v", out, err)
	}
}

// [sig-auth] ServiceAccounts should mount projected service account token; ServiceAccountIssuerDiscovery should support OIDC
// discovery of service account issuer.
func TestIssuerFromPod(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	const audience = "oidc-discovery-test"
	pod := testPod("verifies", nil, "issuer", "--token-path", "/var/run/secrets/tokens/sa-token", "--audience", audience)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "sa-token", Audience: audience, ExpirationSeconds: ptr.To(int64(7200))}},
	}}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/tokens", ReadOnly: true}}
	_, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	must(t, err)
	ended := s.pod(pod.Name, "ended", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	if out := s.kubectl("logs", pod.Name); ended.Status.Phase != corev1.PodSucceeded || out != "verified the token of system:serviceaccount:"+s.namespace+":default\n" {
		t.Errorf("%s: %s", ended.Status.Phase, out)
	}
}
