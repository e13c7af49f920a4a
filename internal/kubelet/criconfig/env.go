package criconfig

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubectl/pkg/util/fieldpath"
	resourceutil "k8s.io/kubectl/pkg/util/resource"
)

// Env gives the environment of a container: what it declares, and the variables of services. podIPs are the addresses of
// the pod, which its status may not have yet.
func (n *Node) Env(ctx context.Context, src *Sources, pod *corev1.Pod, c *corev1.Container, podIPs []string) ([]*runtimeapi.KeyValue, error) {
	services := serviceEnv(src.Services(pod.Namespace), pod)
	env := newEnv()
	for i := range c.EnvFrom {
		if err := env.from(ctx, src, pod.Namespace, &c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		v := &c.Env[i]
		value, ok, err := n.envValue(ctx, src, pod, c, v, podIPs, env.values, services)
		if err != nil {
			return nil, err
		}
		if ok {
			env.set(v.Name, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, ok := env.values[name]; !ok {
			env.set(name, services[name])
		}
	}
	list := make([]*runtimeapi.KeyValue, 0, len(env.names))
	for _, name := range env.names {
		list = append(list, &runtimeapi.KeyValue{Key: name, Value: []byte(env.values[name])})
	}
	return list, nil
}

// environment is a set of variables in the order in which they were first set.
type environment struct {
	names  []string
	values map[string]string
}

func newEnv() *environment { return &environment{values: map[string]string{}} }

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// from adds all keys of a ConfigMap or Secret.
func (e *environment) from(ctx context.Context, src *Sources, namespace string, from *corev1.EnvFromSource) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		m, err := src.ConfigMap(ctx, namespace, from.ConfigMapRef.Name)
		if skip, err := missing(err, from.ConfigMapRef.Optional); skip || err != nil {
			return err
		}
		maps.Copy(data, m.Data)
	case from.SecretRef != nil:
		s, err := src.Secret(ctx, namespace, from.SecretRef.Name)
		if skip, err := missing(err, from.SecretRef.Optional); skip || err != nil {
			return err
		}
		for k, v := range s.Data {
			data[k] = string(v)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if !strings.Contains(k, "=") {
			e.set(from.Prefix+k, data[k])
		}
	}
	return nil
}

// missing sorts the error of looking up a reference: one that is optional may be absent.
func missing(err error, optional *bool) (skip bool, _ error) {
	if err == nil {
		return false, nil
	}
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return true, nil
	}
	return false, &ConfigError{err}
}

// envValue is the value of one variable; ok is false when it has none and may do without.
func (n *Node) envValue(ctx context.Context, src *Sources, pod *corev1.Pod, c *corev1.Container, v *corev1.EnvVar, podIPs []string,
	values, services map[string]string,
) (value string, ok bool, err error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return Expand(v.Value, values, services), true, nil
	case from.FieldRef != nil:
		value, err = n.FieldValue(pod, from.FieldRef.FieldPath, podIPs)
	case from.ResourceFieldRef != nil:
		value, err = n.ResourceValue(pod, c, from.ResourceFieldRef)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := src.ConfigMap(ctx, pod.Namespace, ref.Name)
		if skip, err := missing(err, ref.Optional); skip || err != nil {
			return "", false, err
		}
		value, found := m.Data[ref.Key]
		if !found {
			if ref.Optional != nil && *ref.Optional {
				return "", false, nil
			}
			return "", false, configErrorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
		}
		return value, true, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := src.Secret(ctx, pod.Namespace, ref.Name)
		if skip, err := missing(err, ref.Optional); skip || err != nil {
			return "", false, err
		}
		value, found := s.Data[ref.Key]
		if !found {
			if ref.Optional != nil && *ref.Optional {
				return "", false, nil
			}
			return "", false, configErrorf("couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
		}
		return string(value), true, nil
	case from.FileKeyRef != nil:
		return fileValue(src, from.FileKeyRef)
	}
	if err != nil {
		return "", false, &ConfigError{err}
	}
	return value, true, nil
}

// FieldValue is the value of a field of the pod for the downward API.
func (n *Node) FieldValue(pod *corev1.Pod, path string, podIPs []string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return n.HostIPs[0], nil
	case "status.hostIPs":
		return strings.Join(n.HostIPs, ","), nil
	case "status.podIP":
		if len(podIPs) == 0 {
			return "", nil
		}
		return podIPs[0], nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// ResourceValue is the value of a container's resource for the downward API. A limit that is not set is what the pod or
// the node has.
func (n *Node) ResourceValue(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		c = nil
		for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range list {
				if list[i].Name == ref.ContainerName {
					c = &list[i]
				}
			}
		}
		if c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	c = c.DeepCopy()
	if c.Resources.Limits == nil {
		c.Resources.Limits = corev1.ResourceList{}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := c.Resources.Limits[name]; ok && !q.IsZero() {
			continue
		}
		if pod.Spec.Resources != nil {
			if q, ok := pod.Spec.Resources.Limits[name]; ok {
				c.Resources.Limits[name] = q
				continue
			}
		}
		if q, ok := n.Allocatable[name]; ok {
			c.Resources.Limits[name] = q
		}
	}
	ref = ref.DeepCopy()
	if ref.Divisor.IsZero() {
		ref.Divisor = resource.MustParse("1")
	}
	return resourceutil.ExtractContainerResourceValue(ref, c)
}

// fileValue reads a variable from a file in a volume of the pod (KEP-3721).
func fileValue(src *Sources, ref *corev1.FileKeySelector) (string, bool, error) {
	optional := ref.Optional != nil && *ref.Optional
	dir, err := src.VolumeDir(ref.VolumeName)
	if err != nil {
		return "", false, &ConfigError{err}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", false, &ConfigError{fmt.Errorf("opening volume %s: %w", ref.VolumeName, err)}
	}
	defer root.Close()
	data, err := root.ReadFile(filepath.Clean(ref.Path))
	if os.IsNotExist(err) && optional {
		return "", false, nil
	}
	if err != nil {
		return "", false, configErrorf("couldn't parse env file: %w", err)
	}
	vars, err := ParseEnvFile(string(data))
	if err != nil {
		return "", false, configErrorf("couldn't parse env file: %w", err)
	}
	value, ok := vars[ref.Key]
	if !ok && !optional {
		return "", false, configErrorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
	}
	return value, ok, nil
}

// ParseEnvFile reads lines of the form NAME='value', where the value is in single quotes and may span lines. Empty lines and
// those that begin with # say nothing.
func ParseEnvFile(s string) (map[string]string, error) {
	vars := map[string]string{}
	for line := 1; s != ""; {
		text, rest, _ := strings.Cut(s, "\n")
		trimmed := strings.TrimSpace(text)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			s, line = rest, line+1
			continue
		}
		eq := strings.IndexByte(s, '=')
		if eq < 0 || eq >= len(text) {
			return nil, fmt.Errorf("line %d: expected NAME='value'", line)
		}
		name := strings.TrimLeft(s[:eq], " \t")
		if name == "" || strings.ContainsAny(name, " \t'") {
			return nil, fmt.Errorf("line %d: invalid variable name %q", line, name)
		}
		value := s[eq+1:]
		if !strings.HasPrefix(value, "'") {
			return nil, fmt.Errorf("line %d: the value must be in single quotes", line)
		}
		end := strings.IndexByte(value[1:], '\'')
		if end < 0 {
			return nil, fmt.Errorf("line %d: unterminated single quote", line)
		}
		vars[name] = value[1 : 1+end]
		line += strings.Count(vars[name], "\n") + 1
		after, rest, _ := strings.Cut(value[end+2:], "\n")
		if after = strings.TrimSpace(after); after != "" && !strings.HasPrefix(after, "#") {
			return nil, fmt.Errorf("line %d: unexpected text after the value", line-1)
		}
		s = rest
	}
	return vars, nil
}

// serviceEnv are the variables of the services of the pod's namespace, or of default/kubernetes alone when the pod asks
// for no links.
func serviceEnv(services []*corev1.Service, pod *corev1.Pod) map[string]string {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	env := map[string]string{}
	byName := map[string]*corev1.Service{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		master := s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
		if s.Namespace == pod.Namespace && links {
			byName[s.Name] = s
		} else if master && byName[s.Name] == nil {
			byName[s.Name] = s
		}
	}
	for _, s := range byName {
		addServiceEnv(env, s)
	}
	return env
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

func addServiceEnv(env map[string]string, s *corev1.Service) {
	if len(s.Spec.Ports) == 0 {
		return
	}
	name := envName(s.Name)
	env[name+"_SERVICE_HOST"] = s.Spec.ClusterIP
	env[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		port := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			env[name+"_SERVICE_PORT_"+envName(p.Name)] = port
		}
		protocol := string(corev1.ProtocolTCP)
		if p.Protocol != "" {
			protocol = string(p.Protocol)
		}
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(s.Spec.ClusterIP, port)
		if i == 0 {
			env[name+"_PORT"] = url
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(protocol)
		env[prefix] = url
		env[prefix+"_PROTO"] = strings.ToLower(protocol)
		env[prefix+"_PORT"] = port
		env[prefix+"_ADDR"] = s.Spec.ClusterIP
	}
}
