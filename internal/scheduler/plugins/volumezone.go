package plugins

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// zoneLabels are the labels of volumes that limit where they can be reached, the old names to the right.
var zoneLabels = [][2]string{
	{corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone},
	{corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaRegion},
}

// VolumeZone lets nodes pass that are in the zones which the labels of the pod's volumes name.
func VolumeZone(v *Volumes) *framework.Plugin {
	const name = "VolumeZone"
	elsewhere := &framework.Status{Code: framework.Unresolvable, Plugin: name, Reasons: []string{"node(s) had no available volume zone"}}
	return &framework.Plugin{
		Name: name,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			var limits []zoneLimit
			if usesClaims(c.Pod.Pod) {
				limits = zoneLimits(v.boundVolumes(c.Pod.Pod))
			}
			if len(limits) == 0 {
				return nil, nil
			}
			return check(func(n *framework.Node) *framework.Status {
				for i := range limits {
					if !limits[i].allows(n.Labels) {
						return elsewhere
					}
				}
				return nil
			}), nil
		},
		Events: storageEvents | framework.PodChanged,
	}
}

// zoneLimit is what a label of a volume demands of nodes.
type zoneLimit struct {
	keys   [2]string
	values []string
}

func zoneLimits(volumes []*corev1.PersistentVolume) []zoneLimit {
	var out []zoneLimit
	for _, volume := range volumes {
		for _, keys := range zoneLabels {
			for _, key := range keys {
				if value, ok := volume.Labels[key]; ok {
					// A volume in several zones names them with two underscores in between.
					out = append(out, zoneLimit{keys, strings.Split(value, "__")})
				}
			}
		}
	}
	return out
}

// allows: a node without any label of zone or region is in none of them, and everywhere.
func (z *zoneLimit) allows(node map[string]string) bool {
	labelled := false
	for _, keys := range zoneLabels {
		for _, key := range keys {
			_, ok := node[key]
			labelled = labelled || ok
		}
	}
	if !labelled {
		return true
	}
	for _, key := range z.keys {
		for _, value := range z.values {
			if have, ok := node[key]; ok && have == value {
				return true
			}
		}
	}
	return false
}
