// Package nodeproxy connects clients to what runs on nodes: a container's log, exec, attach, port-forward, and HTTP servers of
// pods, services and nodes.
//
// What flows in are requests that the API server has authorized, for subresources that are no objects; what flows out
// are connections to the kubelet of the pod's node, or to the pod itself. Streams are carried over SPDY or over
// WebSockets (KEP-4006), whichever the client speaks.
package nodeproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
)

// Config says where things are found.
type Config struct {
	Pod     lookup.Getter[*corev1.Pod]
	Node    lookup.Getter[*corev1.Node]
	Service lookup.Getter[*corev1.Service]
	Slices  lookup.Lister[*discoveryv1.EndpointSlice]
	// TLS is shown to kubelets, and what they show is checked by it.
	TLS *tls.Config
}

// dialTimeout is how long a node or pod has to accept a connection.
const dialTimeout = 10 * time.Second

// connector holds the transports, which keep connections for the next request.
type connector struct {
	Config
	kubelet *http.Transport // to kubelets
	direct  *http.Transport // to pods and services
}

// Connectors makes the handlers, by the names that apiserver.Config.Connectors expects. Close ends idle connections.
func Connectors(config Config) (handlers map[string]http.Handler, closeIdle func()) {
	dial := (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	c := &connector{
		Config: config,
		// SPDY and WebSockets need HTTP/1.1, so HTTP/2 is not offered.
		kubelet: &http.Transport{DialContext: dial, TLSClientConfig: config.TLS, TLSHandshakeTimeout: dialTimeout, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}},
		// A pod's certificate is its own affair; upstream does not check it either.
		direct: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, TLSHandshakeTimeout: dialTimeout, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, DisableCompression: true},
	}
	handlers = map[string]http.Handler{
		"pods/log":         handler(c.log),
		"pods/exec":        handler(c.exec),
		"pods/attach":      handler(c.attach),
		"pods/portforward": handler(c.portForward),
		"pods/proxy":       handler(c.proxyPod),
		"services/proxy":   handler(c.proxyService),
		"nodes/proxy":      handler(c.proxyNode),
	}
	return handlers, func() {
		c.kubelet.CloseIdleConnections()
		c.direct.CloseIdleConnections()
	}
}

// handler makes an http.Handler of a function that returns an error as long as it has answered nothing.
type handler func(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		writeError(w, apierrors.NewInternalError(fmt.Errorf("no request info in the context of %s", r.URL.Path)))
		return
	}
	if err := h(w, r, info); err != nil {
		writeError(w, err)
	}
}

// pod finds the pod that a request is about, and the container: the one that is named, or the only one.
func (c *connector) pod(ctx context.Context, info *request.RequestInfo, container string) (*corev1.Pod, string, error) {
	pod, err := c.Pod(ctx, info.Namespace, info.Name)
	if err != nil {
		return nil, "", notFound(err, "pods", info.Name)
	}
	container, err = chooseContainer(pod, container)
	return pod, container, err
}

// kubeletURL is the base URL of a node's kubelet.
func (c *connector) kubeletURL(ctx context.Context, nodeName string) (*url.URL, error) {
	node, err := c.Node(ctx, "", nodeName)
	if err != nil {
		return nil, notFound(err, "nodes", nodeName)
	}
	host, err := nodeAddress(node)
	if err != nil {
		return nil, err
	}
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	if port == 0 {
		port = 10250
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, nil
}

// nodeAddress is how a node is reached: by its internal address if it has one, since names may not resolve.
func nodeAddress(node *corev1.Node) (string, error) {
	for _, wanted := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeInternalDNS, corev1.NodeExternalDNS, corev1.NodeHostName} {
		for _, a := range node.Status.Addresses {
			if a.Type == wanted && a.Address != "" {
				return a.Address, nil
			}
		}
	}
	return "", apierrors.NewInternalError(fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
}
