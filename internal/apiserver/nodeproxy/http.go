package nodeproxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// proxyPod forwards HTTP to a pod: [scheme:]name[:port].
func (c *connector) proxyPod(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(info.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", info.Name))
	}
	pod, err := c.Pod(r.Context(), info.Namespace, name)
	if err != nil {
		return notFound(err, "pods", name)
	}
	port, err = podPort(pod, port)
	if err != nil {
		return err
	}
	if pod.Status.PodIP == "" {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("pod %s has no address yet", name))
	}
	return forward(w, r, info, c.direct, scheme, net.JoinHostPort(pod.Status.PodIP, port))
}

// podPort finds a port of a pod by its name, or takes the number, or the first port that a container names.
func podPort(pod *corev1.Pod, port string) (string, error) {
	if _, err := strconv.ParseUint(port, 10, 16); err == nil {
		return port, nil
	}
	for _, container := range pod.Spec.Containers {
		for _, cp := range container.Ports {
			if port == "" || cp.Name == port {
				return strconv.Itoa(int(cp.ContainerPort)), nil
			}
		}
	}
	if port == "" {
		return "80", nil
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no port %q found for pod %q", port, pod.Name))
}

// proxyService forwards HTTP to one of a Service's ready endpoints: [scheme:]name[:port].
func (c *connector) proxyService(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(info.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", info.Name))
	}
	svc, err := c.Service(r.Context(), info.Namespace, name)
	if err != nil {
		return notFound(err, "services", name)
	}
	portName, err := servicePort(svc, port)
	if err != nil {
		return err
	}
	hosts, err := c.endpoints(r, svc, portName)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", info.Name))
	}
	return forward(w, r, info, c.direct, scheme, hosts[rand.IntN(len(hosts))])
}

// servicePort finds the name of a Service's port by its name or number; the only one when neither is given.
func servicePort(svc *corev1.Service, port string) (string, error) {
	for _, sp := range svc.Spec.Ports {
		if port == sp.Name || port == strconv.Itoa(int(sp.Port)) || port == "" && len(svc.Spec.Ports) == 1 {
			return sp.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, svc.Name))
}

// endpoints lists where ready pods answer on a port.
func (c *connector) endpoints(r *http.Request, svc *corev1.Service, portName string) ([]string, error) {
	slices, err := c.Slices(r.Context(), svc.Namespace)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, s := range slices {
		if s.Labels["kubernetes.io/service-name"] != svc.Name {
			continue
		}
		for _, sp := range s.Ports {
			if sp.Port == nil || sp.Name != nil && *sp.Name != portName || sp.Name == nil && portName != "" {
				continue
			}
			for _, e := range s.Endpoints {
				if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					hosts = append(hosts, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*sp.Port))))
				}
			}
		}
	}
	return hosts, nil
}

// proxyNode forwards HTTP to a node's kubelet, or to another port of the node: [scheme:]name[:port].
func (c *connector) proxyNode(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(info.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", info.Name))
	}
	kubelet, err := c.kubeletURL(r.Context(), name)
	if err != nil {
		return err
	}
	if port == "" || port == kubelet.Port() {
		return forward(w, r, info, c.kubelet, "https", kubelet.Host)
	}
	return forward(w, r, info, c.direct, scheme, net.JoinHostPort(kubelet.Hostname(), port))
}

// forward proxies a request for the path behind ".../proxy". Links in HTML pages are rewritten, so that they lead back here.
func forward(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, transport http.RoundTripper, scheme, host string) error {
	if scheme == "" {
		scheme = "http"
	}
	prefix, path, _ := strings.Cut(r.URL.Path, "/"+info.Name+"/proxy")
	target := &url.URL{Scheme: scheme, Host: host, Path: path, RawQuery: r.URL.RawQuery}
	wrapped := &proxy.Transport{Scheme: "", Host: "", PathPrepend: prefix + "/" + info.Name + "/proxy", RoundTripper: transport}
	h := proxy.NewUpgradeAwareHandler(target, wrapped, false, false, responder{})
	h.UseLocationHost = true
	h.ServeHTTP(w, r)
	return nil
}
