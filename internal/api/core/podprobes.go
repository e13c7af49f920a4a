package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// handler is what a probe or a hook does: exactly one of its fields is set.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (v *podValidator) lifecycle(l *corev1.Lifecycle, path *field.Path) {
	if h := l.PostStart; h != nil {
		v.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child("postStart"))
	}
	if h := l.PreStop; h != nil {
		v.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child("preStop"))
	}
	if l.StopSignal != nil {
		v.stopSignal(*l.StopSignal, path.Child("stopSignal"))
	}
}

// stopSignal: which signals there are depends on the operating system, so the pod must name it (KEP-4960).
func (v *podValidator) stopSignal(signal corev1.Signal, path *field.Path) {
	switch {
	case v.spec.OS == nil || v.spec.OS.Name == "":
		v.add(field.Forbidden(path, "may not be set for containers with empty `spec.os.name`"))
	case v.spec.OS.Name == corev1.Windows:
		optionalEnum(v, path, signal, corev1.SIGKILL, corev1.SIGTERM)
	case !linuxSignals.Has(signal):
		v.add(field.NotSupported(path, signal, sets.List(linuxSignals)))
	}
}

var linuxSignals = sets.New(
	corev1.SIGABRT, corev1.SIGALRM, corev1.SIGBUS, corev1.SIGCHLD, corev1.SIGCLD, corev1.SIGCONT, corev1.SIGFPE,
	corev1.SIGHUP, corev1.SIGILL, corev1.SIGINT, corev1.SIGIO, corev1.SIGIOT, corev1.SIGKILL, corev1.SIGPIPE,
	corev1.SIGPOLL, corev1.SIGPROF, corev1.SIGPWR, corev1.SIGQUIT, corev1.SIGSEGV, corev1.SIGSTKFLT, corev1.SIGSTOP,
	corev1.SIGSYS, corev1.SIGTERM, corev1.SIGTRAP, corev1.SIGTSTP, corev1.SIGTTIN, corev1.SIGTTOU, corev1.SIGURG,
	corev1.SIGUSR1, corev1.SIGUSR2, corev1.SIGVTALRM, corev1.SIGWINCH, corev1.SIGXCPU, corev1.SIGXFSZ,
	corev1.SIGRTMIN, corev1.SIGRTMINPLUS1, corev1.SIGRTMINPLUS2, corev1.SIGRTMINPLUS3, corev1.SIGRTMINPLUS4,
	corev1.SIGRTMINPLUS5, corev1.SIGRTMINPLUS6, corev1.SIGRTMINPLUS7, corev1.SIGRTMINPLUS8, corev1.SIGRTMINPLUS9,
	corev1.SIGRTMINPLUS10, corev1.SIGRTMINPLUS11, corev1.SIGRTMINPLUS12, corev1.SIGRTMINPLUS13,
	corev1.SIGRTMINPLUS14, corev1.SIGRTMINPLUS15, corev1.SIGRTMAXMINUS14, corev1.SIGRTMAXMINUS13,
	corev1.SIGRTMAXMINUS12, corev1.SIGRTMAXMINUS11, corev1.SIGRTMAXMINUS10, corev1.SIGRTMAXMINUS9,
	corev1.SIGRTMAXMINUS8, corev1.SIGRTMAXMINUS7, corev1.SIGRTMAXMINUS6, corev1.SIGRTMAXMINUS5,
	corev1.SIGRTMAXMINUS4, corev1.SIGRTMAXMINUS3, corev1.SIGRTMAXMINUS2, corev1.SIGRTMAXMINUS1, corev1.SIGRTMAX,
)

// livenessProbe checks a probe whose failure kills the container: liveness or startup. One success is enough.
func (v *podValidator) livenessProbe(p *corev1.Probe, path *field.Path) {
	v.probe(p, path)
	if p.SuccessThreshold != 1 {
		v.add(field.Invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
	}
}

func (v *podValidator) readinessProbe(p *corev1.Probe, path *field.Path) {
	v.probe(p, path)
	if p.TerminationGracePeriodSeconds != nil {
		v.add(field.Invalid(path.Child("terminationGracePeriodSeconds"), *p.TerminationGracePeriodSeconds,
			"must not be set for readinessProbes"))
	}
}

func (v *podValidator) probe(p *corev1.Probe, path *field.Path) {
	v.handler(handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, path)
	nonNegative := func(value int32, name string) {
		if value < 0 {
			v.addAll(apivalidation.ValidateNonnegativeField(int64(value), path.Child(name)))
		}
	}
	nonNegative(p.InitialDelaySeconds, "initialDelaySeconds")
	nonNegative(p.TimeoutSeconds, "timeoutSeconds")
	nonNegative(p.PeriodSeconds, "periodSeconds")
	nonNegative(p.SuccessThreshold, "successThreshold")
	nonNegative(p.FailureThreshold, "failureThreshold")
	if grace := p.TerminationGracePeriodSeconds; grace != nil && *grace <= 0 {
		v.add(field.Invalid(path.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0"))
	}
}

func (v *podValidator) handler(h handler, path *field.Path) {
	kinds := 0
	check := func(set bool, name string, validate func(*field.Path)) {
		if !set {
			return
		}
		if kinds++; kinds > 1 {
			v.add(field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
			return
		}
		validate(path.Child(name))
	}
	check(h.exec != nil, "exec", func(at *field.Path) {
		if len(h.exec.Command) == 0 {
			v.add(field.Required(at.Child("command"), ""))
		}
	})
	check(h.http != nil, "httpGet", func(at *field.Path) { v.httpGet(h.http, at) })
	check(h.tcp != nil, "tcpSocket", func(at *field.Path) { v.port(h.tcp.Port, at.Child("port")) })
	check(h.grpc != nil, "grpc", func(at *field.Path) {
		v.invalid(at.Child("port"), h.grpc.Port, validation.IsValidPortNum(int(h.grpc.Port)))
	})
	check(h.sleep != nil, "sleep", func(at *field.Path) {
		grace := v.gracePeriod()
		if h.sleep.Seconds < 0 || h.sleep.Seconds > grace {
			v.add(field.Invalid(at, h.sleep.Seconds,
				fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", grace)))
		}
	})
	if kinds == 0 {
		v.add(field.Required(path, "must specify a handler type"))
	}
}

func (v *podValidator) gracePeriod() int64 {
	if g := v.spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return 0
}

func (v *podValidator) httpGet(action *corev1.HTTPGetAction, path *field.Path) {
	v.required(action.Path, path, "path")
	v.port(action.Port, path.Child("port"))
	optionalEnum(v, path.Child("scheme"), action.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, header := range action.HTTPHeaders {
		v.invalid(path.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))
	}
}

// port checks the number or the name of a port.
func (v *podValidator) port(port intstr.IntOrString, path *field.Path) {
	if port.Type == intstr.Int {
		v.invalid(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
		return
	}
	v.invalid(path, port.StrVal, validation.IsValidPortName(port.StrVal))
}
