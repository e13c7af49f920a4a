package server

import (
	"os"
	"strconv"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// nodePressure is how long processes have waited for a resource: cpu, memory or io. It is nil where the kernel does not
// measure that.
func nodePressure(resource string) *stats.PSIStats {
	data, err := os.ReadFile("/proc/pressure/" + resource)
	if err != nil {
		return nil
	}
	return parsePressure(string(data))
}

// parsePressure reads a file of pressure stall information (Documentation/accounting/psi.rst of Linux), whose totals are
// microseconds: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0". There may be no line of "full" for the processors.
func parsePressure(text string) *stats.PSIStats {
	var psi stats.PSIStats
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		data := &psi.Some
		if fields[0] == "full" {
			data = &psi.Full
		}
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil
			}
			switch name {
			case "avg10":
				data.Avg10 = number
			case "avg60":
				data.Avg60 = number
			case "avg300":
				data.Avg300 = number
			case "total":
				data.Total = uint64(number) * 1000
			}
		}
	}
	return &psi
}

// pressure translates what CRI says of a container or pod.
func pressure(psi *criapi.PsiStats) *stats.PSIStats {
	if psi == nil {
		return nil
	}
	data := func(d *criapi.PsiData) stats.PSIData {
		return stats.PSIData{Total: d.GetTotal(), Avg10: d.GetAvg10(), Avg60: d.GetAvg60(), Avg300: d.GetAvg300()}
	}
	return &stats.PSIStats{Full: data(psi.Full), Some: data(psi.Some)}
}
