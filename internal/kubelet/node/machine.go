package node

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

// What of the images goes into the status.
const (
	maxImages = 50
	maxNames  = 5
)

// Capacity is what the machine has. dir is on the file system that counts as ephemeral storage.
func Capacity(dir string, maxPods int) (corev1.ResourceList, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("asking for the memory of the machine: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, fmt.Errorf("asking for the size of the file system of %s: %w", dir, err)
	}
	list := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(uint64(info.Totalram)*uint64(info.Unit)), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(st.Blocks)*st.Bsize, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
	}
	for _, size := range criconfig.HugepageSizes() {
		path := fmt.Sprintf("/sys/kernel/mm/hugepages/hugepages-%dkB/nr_hugepages", size>>10)
		pages, _ := strconv.ParseInt(readLine(path), 10, 64)
		name := corev1.ResourceHugePagesPrefix + resource.NewQuantity(int64(size), resource.BinarySI).String()
		list[corev1.ResourceName(name)] = *resource.NewQuantity(pages*int64(size), resource.BinarySI)
	}
	return list, nil
}

// Allocatable is the capacity without what is reserved, and without what is kept free by eviction.
func Allocatable(capacity corev1.ResourceList, reserved ...corev1.ResourceList) corev1.ResourceList {
	list := capacity.DeepCopy()
	for _, r := range reserved {
		for name, q := range r {
			have, ok := list[name]
			if !ok {
				continue
			}
			have.Sub(q)
			if have.Sign() < 0 {
				have = *resource.NewQuantity(0, have.Format)
			}
			list[name] = have
		}
	}
	// Huge pages are memory that nothing else can use.
	memory := list[corev1.ResourceMemory]
	for name, q := range list {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			memory.Sub(q)
		}
	}
	if memory.Sign() < 0 {
		memory = *resource.NewQuantity(0, resource.BinarySI)
	}
	list[corev1.ResourceMemory] = memory
	return list
}

// Info describes the machine and the software on it.
func Info(kubeletVersion string) corev1.NodeSystemInfo {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // cannot fail with a valid pointer
	return corev1.NodeSystemInfo{
		MachineID:       readLine("/etc/machine-id"),
		SystemUUID:      firstNonEmpty(readLine("/sys/class/dmi/id/product_uuid"), readLine("/etc/machine-id")),
		BootID:          readLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion:   unix.ByteSliceToString(uts.Release[:]),
		OSImage:         osImage("/etc/os-release"),
		KubeletVersion:  kubeletVersion,
		OperatingSystem: runtime.GOOS,
		Architecture:    runtime.GOARCH,
	}
}

func firstNonEmpty(values ...string) string {
	i := slices.IndexFunc(values, func(s string) bool { return s != "" })
	if i < 0 {
		return ""
	}
	return values[i]
}

func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

func osImage(path string) string {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return "Unknown"
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if value, ok := strings.CutPrefix(scan.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return "Linux"
}

// runtimeFacts fills in what the runtime says about itself.
func (n *Node) runtimeFacts(ctx context.Context, status *corev1.NodeStatus) {
	version, err := n.cfg.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err == nil {
		status.NodeInfo.ContainerRuntimeVersion = fmt.Sprintf("%s://%s", version.RuntimeName, strings.TrimPrefix(version.RuntimeVersion, "v"))
	}
	answer, err := n.cfg.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return
	}
	status.RuntimeHandlers = nil
	for _, h := range answer.RuntimeHandlers {
		rro, userns := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		status.RuntimeHandlers = append(status.RuntimeHandlers, corev1.NodeRuntimeHandler{
			Name:     h.Name,
			Features: &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &userns},
		})
	}
	sort.Slice(status.RuntimeHandlers, func(i, j int) bool { return status.RuntimeHandlers[i].Name < status.RuntimeHandlers[j].Name })
	if f := answer.Features; f != nil {
		policy := f.SupplementalGroupsPolicy
		status.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &policy}
	}
}

// images are the largest images of the node.
func (n *Node) images(ctx context.Context) []corev1.ContainerImage {
	answer, err := n.cfg.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil
	}
	list := make([]corev1.ContainerImage, 0, len(answer.Images))
	for _, image := range answer.Images {
		names := append(slices.Clone(image.RepoDigests), image.RepoTags...)
		if len(names) == 0 {
			continue
		}
		list = append(list, corev1.ContainerImage{Names: names[:min(len(names), maxNames)], SizeBytes: int64(image.Size)})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].SizeBytes > list[j].SizeBytes })
	return list[:min(len(list), maxImages)]
}
