package plugins

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// The sizes of images, in bytes, between which nodes that have them are preferred: less is pulled quickly, and more (for
// each container) makes no node better still.
const (
	smallImages int64 = 23 << 20
	largeImage  int64 = 1000 << 20
)

// ImageLocality prefers nodes that have the pod's images, in proportion to how many nodes have them: otherwise all pods of
// an image would go to the node that pulled it first.
func ImageLocality() *framework.Plugin {
	return &framework.Plugin{
		Name:   "ImageLocality",
		Weight: 1,
		PreScore: func(c *framework.Cycle, _ []*framework.Node) (framework.Scorer, *framework.Status) {
			images, containers := podImages(c.Pod.Pod)
			spread := make([]float64, 0, len(images))
			known := images[:0]
			for _, image := range images {
				if having := c.State.NodesWithImage(image); having > 0 {
					known = append(known, image)
					spread = append(spread, float64(having)/float64(len(c.State.Nodes())))
				}
			}
			if len(known) == 0 {
				return nil, nil
			}
			return rate(func(n *framework.Node) int64 {
				var sum int64
				for i, image := range known {
					sum += int64(float64(n.Images[image]) * spread[i])
				}
				return imageScore(sum, containers)
			}), nil
		},
	}
}

func imageScore(sum int64, containers int) int64 {
	most := largeImage * int64(containers)
	sum = min(max(sum, smallImages), most)
	return framework.MaxScore * (sum - smallImages) / (most - smallImages)
}

// podImages are the images of all containers, under the names that nodes report.
func podImages(p *corev1.Pod) (images []string, containers int) {
	add := func(list []corev1.Container) {
		for i := range list {
			name := list[i].Image
			if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
				name += ":latest"
			}
			images = append(images, name)
		}
	}
	add(p.Spec.InitContainers)
	add(p.Spec.Containers)
	return images, len(images)
}
