package server

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/component-base/metrics/legacyregistry"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubelet/pkg/types"
)

// collectTimeout bounds the questions to the runtime for one scrape.
const collectTimeout = 10 * time.Second

// ownMetrics are those of this process.
func ownMetrics() http.Handler { return legacyregistry.Handler() }

// collector reads metrics when it is scraped, and keeps nothing.
type collector func(ctx context.Context, emit func(m *metric, value float64, at time.Time, labels ...string)) error

// metric is the description of one metric.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) *metric {
	return &metric{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) *metric {
	return &metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

// Describe sends nothing: which metrics there are is known only at the time.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	err := c(ctx, func(m *metric, value float64, at time.Time, labels ...string) {
		sample := prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		if !at.IsZero() {
			sample = prometheus.NewMetricWithTimestamp(at, sample)
		}
		out <- sample
	})
	failed := 0.0
	if err != nil {
		failed = 1
	}
	out <- prometheus.MustNewConstMetric(scrapeError.desc, scrapeError.kind, failed)
}

func (c collector) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}

var scrapeError = gauge("resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise")

// Metrics of /metrics/resource, which metrics-server reads (KEP-727).
var (
	nodeCPU        = counter("node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds")
	nodeMemory     = gauge("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes")
	nodeSwap       = gauge("node_swap_usage_bytes", "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems")
	podCPU         = counter("pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", "pod", "namespace")
	podMemory      = gauge("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", "pod", "namespace")
	containerCPU   = counter("container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", "container", "pod", "namespace")
	containerMem   = gauge("container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", "container", "pod", "namespace")
	containerSwap  = gauge("container_swap_usage_bytes", "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems", "container", "pod", "namespace")
	containerStart = gauge("container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", "container", "pod", "namespace")
)

// resourceMetrics answers /metrics/resource.
func (s *Server) resourceMetrics() http.Handler {
	return collector(func(ctx context.Context, emit func(*metric, float64, time.Time, ...string)) error {
		node, err := readNode()
		if err != nil {
			return err
		}
		now := time.Now()
		emit(nodeCPU, node.cpu.Seconds(), now)
		emit(nodeMemory, float64(node.workingSet), now)
		emit(nodeSwap, float64(node.swapUsage), now)
		sandboxes, running, err := s.sandboxStats(ctx)
		if err != nil {
			return err
		}
		for _, sandbox := range sandboxes {
			meta, linux := sandbox.GetAttributes().GetMetadata(), sandbox.GetLinux()
			pod, namespace := meta.GetName(), meta.GetNamespace()
			if v := linux.GetCpu().GetUsageCoreNanoSeconds(); v != nil {
				emit(podCPU, seconds(v), at(linux.Cpu.Timestamp).Time, pod, namespace)
			}
			if v := linux.GetMemory().GetWorkingSetBytes(); v != nil {
				emit(podMemory, float64(v.Value), at(linux.Memory.Timestamp).Time, pod, namespace)
			}
			for _, c := range linux.GetContainers() {
				name := c.GetAttributes().GetLabels()[types.KubernetesContainerNameLabel]
				if v := c.GetCpu().GetUsageCoreNanoSeconds(); v != nil {
					emit(containerCPU, seconds(v), at(c.Cpu.Timestamp).Time, name, pod, namespace)
				}
				if v := c.GetMemory().GetWorkingSetBytes(); v != nil {
					emit(containerMem, float64(v.Value), at(c.Memory.Timestamp).Time, name, pod, namespace)
				}
				if v := c.GetSwap().GetSwapUsageBytes(); v != nil {
					emit(containerSwap, float64(v.Value), at(c.Swap.Timestamp).Time, name, pod, namespace)
				}
				emit(containerStart, float64(running.containers[c.GetAttributes().GetId()].CreatedAt)/1e9, time.Time{}, name, pod, namespace)
			}
		}
		return nil
	}).handler()
}

func seconds(nanoseconds *criapi.UInt64Value) float64 { return float64(nanoseconds.GetValue()) / 1e9 }

// Metrics of /metrics/cadvisor, by the names and labels that dashboards use.
var (
	cadvisorLabels    = []string{"container", "id", "image", "name", "namespace", "pod"}
	cadvisorCPU       = counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", append(cadvisorLabels, "cpu")...)
	cadvisorUsage     = gauge("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", cadvisorLabels...)
	cadvisorSet       = gauge("container_memory_working_set_bytes", "Current working set in bytes.", cadvisorLabels...)
	cadvisorRSS       = gauge("container_memory_rss", "Size of RSS in bytes.", cadvisorLabels...)
	cadvisorFs        = gauge("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", cadvisorLabels...)
	cadvisorStart     = gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", cadvisorLabels...)
	cadvisorProcesses = gauge("container_processes", "Number of processes running inside the container.", cadvisorLabels...)
	networkLabels     = append(cadvisorLabels, "interface")
	cadvisorReceive   = counter("container_network_receive_bytes_total", "Cumulative count of bytes received", networkLabels...)
	cadvisorReceiveE  = counter("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", networkLabels...)
	cadvisorTransmit  = counter("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", networkLabels...)
	cadvisorTransmitE = counter("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", networkLabels...)
	machineCores      = gauge("machine_cpu_cores", "Number of logical CPU cores.")
	machineMemory     = gauge("machine_memory_bytes", "Amount of memory installed on the machine.")
)

// containerMetrics answers /metrics/cadvisor.
func (s *Server) containerMetrics() http.Handler {
	return collector(func(ctx context.Context, emit func(*metric, float64, time.Time, ...string)) error {
		node, err := readNode()
		if err != nil {
			return err
		}
		emit(machineCores, float64(runtime.NumCPU()), time.Time{})
		emit(machineMemory, float64(node.memoryTotal), time.Time{})
		sandboxes, running, err := s.sandboxStats(ctx)
		if err != nil {
			return err
		}
		for _, sandbox := range sandboxes {
			attributes, linux := sandbox.GetAttributes(), sandbox.GetLinux()
			meta := attributes.GetMetadata()
			pod := []string{"", "/kubepods/pod" + meta.GetUid(), "", "", meta.GetNamespace(), meta.GetName()}
			emitUsage(emit, pod, linux.GetCpu(), linux.GetMemory())
			if v := linux.GetProcess().GetProcessCount(); v != nil {
				emit(cadvisorProcesses, float64(v.Value), at(linux.Process.Timestamp).Time, pod...)
			}
			if i := linux.GetNetwork().GetDefaultInterface(); i != nil {
				when, labels := at(linux.Network.Timestamp).Time, append(pod, i.Name)
				emit(cadvisorReceive, float64(i.GetRxBytes().GetValue()), when, labels...)
				emit(cadvisorReceiveE, float64(i.GetRxErrors().GetValue()), when, labels...)
				emit(cadvisorTransmit, float64(i.GetTxBytes().GetValue()), when, labels...)
				emit(cadvisorTransmitE, float64(i.GetTxErrors().GetValue()), when, labels...)
			}
			for _, c := range linux.GetContainers() {
				id := c.GetAttributes().GetId()
				known := running.containers[id]
				labels := []string{c.GetAttributes().GetLabels()[types.KubernetesContainerNameLabel],
					"/kubepods/pod" + meta.GetUid() + "/" + id, known.GetImage().GetUserSpecifiedImage(), id, meta.GetNamespace(), meta.GetName()}
				emitUsage(emit, labels, c.GetCpu(), c.GetMemory())
				if v := c.GetWritableLayer().GetUsedBytes(); v != nil {
					emit(cadvisorFs, float64(v.Value), at(c.WritableLayer.Timestamp).Time, labels...)
				}
				emit(cadvisorStart, float64(known.CreatedAt)/1e9, time.Time{}, labels...)
			}
		}
		return nil
	}).handler()
}

// emitUsage sends what is measured of pods and of containers alike.
func emitUsage(emit func(*metric, float64, time.Time, ...string), labels []string, cpu *criapi.CpuUsage, memory *criapi.MemoryUsage) {
	if v := cpu.GetUsageCoreNanoSeconds(); v != nil {
		emit(cadvisorCPU, seconds(v), at(cpu.Timestamp).Time, append(labels[:len(labels):len(labels)], "total")...)
	}
	when := at(memory.GetTimestamp()).Time
	for m, v := range map[*metric]*criapi.UInt64Value{
		cadvisorUsage: memory.GetUsageBytes(), cadvisorSet: memory.GetWorkingSetBytes(), cadvisorRSS: memory.GetRssBytes(),
	} {
		if v != nil {
			emit(m, float64(v.Value), when, labels...)
		}
	}
}
