package volumes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

func (m *Manager) configMap(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, dir string) (time.Time, error) {
	s := v.ConfigMap
	files, err := m.configMapFiles(ctx, pod, s.Name, s.Items, s.DefaultMode, s.Optional)
	if err != nil {
		return time.Time{}, err
	}
	return time.Time{}, show(pod, dir, files, false)
}

func (m *Manager) secret(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, dir string) (time.Time, error) {
	s := v.Secret
	files, err := m.secretFiles(ctx, pod, s.SecretName, s.Items, s.DefaultMode, s.Optional)
	if err != nil {
		return time.Time{}, err
	}
	return time.Time{}, show(pod, dir, files, true)
}

func (m *Manager) downwardAPI(_ context.Context, pod *corev1.Pod, v *corev1.Volume, dir string) (time.Time, error) {
	files, err := m.downwardFiles(pod, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	if err != nil {
		return time.Time{}, err
	}
	return time.Time{}, show(pod, dir, files, true)
}

// projected puts several sources into one volume; of two with the same path the later wins.
func (m *Manager) projected(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, dir string) (refresh time.Time, err error) {
	all := map[string]file{}
	var errs []error
	for i := range v.Projected.Sources {
		s := &v.Projected.Sources[i]
		var files map[string]file
		var err error
		switch {
		case s.ConfigMap != nil:
			files, err = m.configMapFiles(ctx, pod, s.ConfigMap.Name, s.ConfigMap.Items, v.Projected.DefaultMode, s.ConfigMap.Optional)
		case s.Secret != nil:
			files, err = m.secretFiles(ctx, pod, s.Secret.Name, s.Secret.Items, v.Projected.DefaultMode, s.Secret.Optional)
		case s.DownwardAPI != nil:
			files, err = m.downwardFiles(pod, s.DownwardAPI.Items, v.Projected.DefaultMode)
		case s.ServiceAccountToken != nil:
			var at time.Time
			files, at, err = m.tokenFile(ctx, pod, s.ServiceAccountToken, v.Projected.DefaultMode)
			if err == nil && (refresh.IsZero() || at.Before(refresh)) {
				refresh = at
			}
		case s.ClusterTrustBundle != nil:
			err = errors.New("clusterTrustBundle projections are not supported by this node")
		case s.PodCertificate != nil:
			err = errors.New("podCertificate projections are not supported by this node")
		default:
			err = errors.New("no volume projection matched")
		}
		errs = append(errs, err)
		maps.Copy(all, files)
	}
	if err := errors.Join(errs...); err != nil {
		return time.Time{}, err
	}
	return refresh, show(pod, dir, all, true)
}

func optionally(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (m *Manager) configMapFiles(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, mode *int32, optional *bool) (map[string]file, error) {
	data := map[string][]byte{}
	object, err := m.cfg.ConfigMap(ctx, pod, name)
	if err := optionally(err, optional); err != nil {
		return nil, err
	}
	if object != nil && err == nil {
		for k, v := range object.Data {
			data[k] = []byte(v)
		}
		maps.Copy(data, object.BinaryData)
	}
	return pick(data, items, mode, optional, "references non-existent config key: %s")
}

func (m *Manager) secretFiles(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, mode *int32, optional *bool) (map[string]file, error) {
	var data map[string][]byte
	object, err := m.cfg.Secret(ctx, pod, name)
	if err := optionally(err, optional); err != nil {
		return nil, err
	}
	if object != nil && err == nil {
		data = object.Data
	}
	return pick(data, items, mode, optional, "references non-existent secret key: %s")
}

// pick takes all keys, or those that are named.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode *int32, optional *bool, missing string) (map[string]file, error) {
	files := map[string]file{}
	if len(items) == 0 {
		for k, v := range data {
			files[k] = file{data: v, mode: fileMode(nil, mode)}
		}
		return files, nil
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return nil, fmt.Errorf(missing, item.Key)
		}
		files[item.Path] = file{data: v, mode: fileMode(item.Mode, mode)}
	}
	return files, nil
}

func (m *Manager) downwardFiles(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32) (map[string]file, error) {
	files := map[string]file{}
	for i := range items {
		item := &items[i]
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = m.cfg.FieldValue(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = m.cfg.ResourceValue(pod, &pod.Spec.Containers[0], item.ResourceFieldRef)
		}
		if err != nil {
			return nil, err
		}
		files[item.Path] = file{data: []byte(value), mode: fileMode(item.Mode, mode)}
	}
	return files, nil
}

// tokenKey identifies a token: tokens are bound to one pod.
type tokenKey struct {
	pod      types.UID
	account  string
	audience string
	seconds  int64
}

type token struct {
	value   string
	refresh time.Time
	expires time.Time
}

// tokenFile is a token of the pod's service account, renewed when 80 % of its life is over, or after a day.
func (m *Manager) tokenFile(ctx context.Context, pod *corev1.Pod, s *corev1.ServiceAccountTokenProjection, mode *int32) (map[string]file, time.Time, error) {
	key := tokenKey{pod: pod.UID, account: pod.Spec.ServiceAccountName, audience: s.Audience, seconds: 3600}
	if s.ExpirationSeconds != nil {
		key.seconds = *s.ExpirationSeconds
	}
	t, err := m.token(ctx, pod, key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	f := file{data: []byte(t.value), mode: fileMode(nil, mode)}
	user := commonUser(pod)
	if gid, _ := fsGroup(pod); user != nil || gid != nil {
		f.mode, f.uid = 0o600, user // for its user alone
	}
	return map[string]file{s.Path: f}, t.refresh, nil
}

func (m *Manager) token(ctx context.Context, pod *corev1.Pod, key tokenKey) (token, error) {
	m.mu.Lock()
	t, ok := m.tokens[key]
	m.mu.Unlock()
	now := time.Now()
	if ok && now.Before(t.refresh) {
		return t, nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &key.seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if key.audience != "" {
		request.Spec.Audiences = []string{key.audience}
	}
	answer, err := m.cfg.Token(ctx, pod.Namespace, key.account, request)
	if err != nil {
		if ok && now.Before(t.expires) {
			t.refresh = now.Add(10 * time.Second) // the old one still serves; ask again soon
			return t, nil
		}
		return token{}, err
	}
	life := answer.Status.ExpirationTimestamp.Sub(now)
	fresh := token{value: answer.Status.Token, expires: answer.Status.ExpirationTimestamp.Time, refresh: now.Add(min(life*8/10, 24*time.Hour))}
	m.mu.Lock()
	m.tokens[key] = fresh
	m.mu.Unlock()
	return fresh, nil
}

func (m *Manager) forgetTokens(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.tokens, func(k tokenKey, _ token) bool { return k.pod == uid })
}

// commonUser is the user that all containers of the pod run as, if that is declared and the same.
func commonUser(pod *corev1.Pod) *int64 {
	var user *int64
	all := append(append([]corev1.Container(nil), pod.Spec.InitContainers...), pod.Spec.Containers...)
	for i := range all {
		var u *int64
		if pod.Spec.SecurityContext != nil {
			u = pod.Spec.SecurityContext.RunAsUser
		}
		if sc := all[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
			u = sc.RunAsUser
		}
		if u == nil || user != nil && *user != *u {
			return nil
		}
		user = u
	}
	return user
}
