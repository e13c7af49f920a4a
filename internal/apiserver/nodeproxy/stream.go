package nodeproxy

import (
	"fmt"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
	translate "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

// exec runs a command in a container.
func (c *connector) exec(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		return apierrors.NewBadRequest("you must specify at least 1 command for the container")
	}
	return c.connect(w, r, info, "exec", url.Values{"command": command})
}

// attach connects to the process of a container.
func (c *connector) attach(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	return c.connect(w, r, info, "attach", url.Values{})
}

// connect proxies the streams of exec and attach to the kubelet. Kubelets take SPDY: the newest WebSocket protocol is
// translated, older ones are left to the kubelet.
func (c *connector) connect(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, action string, q url.Values) error {
	streams, err := streamOptions(r.URL.Query())
	if err != nil {
		return err
	}
	target, err := c.container(r, info, action)
	if err != nil {
		return err
	}
	for name, on := range map[string]bool{"input": streams.Stdin, "output": streams.Stdout, "error": streams.Stderr, "tty": streams.Tty} {
		if on {
			q.Set(name, "1")
		}
	}
	target.RawQuery = q.Encode()
	direct := proxy.NewUpgradeAwareHandler(target, c.kubelet, false, true, responder{})
	translated := translate.NewStreamTranslatorHandler(target, c.kubelet, 0, streams)
	translate.NewTranslatingHandler(direct, translated, wsstream.IsWebSocketRequestWithStreamCloseProtocol).ServeHTTP(w, r)
	return nil
}

// container is the kubelet's URL for an action on the container that a request is about.
func (c *connector) container(r *http.Request, info *request.RequestInfo, action string) (*url.URL, error) {
	pod, container, err := c.pod(r.Context(), info, r.URL.Query().Get("container"))
	if err != nil {
		return nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	target, err := c.kubeletURL(r.Context(), pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	target.Path = fmt.Sprintf("/%s/%s/%s/%s", action, pod.Namespace, pod.Name, container)
	return target, nil
}

// streamOptions reads which streams are wanted.
func streamOptions(q url.Values) (translate.Options, error) {
	asked := &corev1.PodAttachOptions{}
	if err := codec.DecodeQuery(q, asked); err != nil {
		return translate.Options{}, apierrors.NewBadRequest(err.Error())
	}
	o := translate.Options{Stdin: asked.Stdin, Stdout: asked.Stdout, Stderr: asked.Stderr, Tty: asked.TTY}
	// exec has output unless it is turned off.
	if _, given := q["stdout"]; !given && !o.Stdin && !o.Stderr {
		o.Stdout, o.Stderr = true, !o.Tty
	}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return o, apierrors.NewBadRequest("you must specify at least one of stdin, stdout, stderr")
	}
	if o.Tty && o.Stderr {
		o.Stderr = false // a terminal has one output
	}
	return o, nil
}

// portForward connects to ports of a pod. SPDY goes through as it is, and WebSockets carry SPDY inside.
func (c *connector) portForward(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	pod, err := c.Pod(r.Context(), info.Namespace, info.Name)
	if err != nil {
		return notFound(err, "pods", info.Name)
	}
	if pod.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	target, err := c.kubeletURL(r.Context(), pod.Spec.NodeName)
	if err != nil {
		return err
	}
	target.Path = fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name)
	target.RawQuery = url.Values{"port": r.URL.Query()["ports"]}.Encode()
	direct := proxy.NewUpgradeAwareHandler(target, c.kubelet, false, true, responder{})
	tunnel := translate.NewTunnelingHandler(direct)
	translate.NewTranslatingHandler(direct, tunnel, wsstream.IsWebSocketRequestWithTunnelingProtocol).ServeHTTP(w, r)
	return nil
}
