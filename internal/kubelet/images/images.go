// Package images makes the images of containers be there.
//
// What flows in are the names of images with the policy and the secrets of a pod; what flows out are the references that
// containers are made from, or why there is none. Attempts that fail are repeated with growing delay.
package images

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

// The reasons for which a container waits for its image.
const (
	InvalidImageName  = "InvalidImageName"
	ErrImageNeverPull = "ErrImageNeverPull"
	ErrImagePull      = "ErrImagePull"
	ImagePullBackOff  = "ImagePullBackOff"
	ImageInspectError = "ImageInspectError"
)

// Error says why there is no image, and when to try again.
type Error struct {
	Reason  string
	Message string
	Retry   time.Duration
}

func (e *Error) Error() string { return e.Message }

// The bounds of the delay between attempts to pull.
const (
	firstBackoff = 10 * time.Second
	lastBackoff  = 5 * time.Minute
	recheck      = 10 * time.Second
	// settle is how long the cause of a failure is shown before the back-off is.
	settle = 2 * time.Second
)

// Puller pulls images. It may be used by many goroutines.
type Puller struct {
	client runtimeapi.ImageServiceClient
	// event tells users of a pod about its images.
	event func(pod *corev1.Pod, container, eventType, reason, message string)
	used  func(id string)

	mu      sync.Mutex
	backoff map[key]wait
}

// key is an image of a pod.
type key struct {
	pod   types.UID
	image string
}

// wait is how long a pull that failed is not repeated.
type wait struct {
	delay time.Duration
	until time.Time
	cause string // what the last attempt failed with
}

// New makes a Puller. used is told the ID of each image that a container is about to use.
func New(client runtimeapi.ImageServiceClient, event func(pod *corev1.Pod, container, eventType, reason, message string), used func(id string)) *Puller {
	return &Puller{client: client, backoff: map[key]wait{}, event: event, used: used}
}

// Request is one image that a container needs.
type Request struct {
	Pod       *corev1.Pod
	Container string // whose events these are
	Image     string
	Policy    corev1.PullPolicy
	Secrets   []*corev1.Secret
	Sandbox   *runtimeapi.PodSandboxConfig
	// RuntimeHandler selects among the image's variants, empty for the default.
	RuntimeHandler string
}

// Ensure returns the reference of the image and whom it runs as, after pulling it if needed. The error is an *Error.
func (p *Puller) Ensure(ctx context.Context, r *Request) (*runtimeapi.ImageSpec, criconfig.ImageUser, error) {
	none := criconfig.ImageUser{}
	name, err := Normalize(r.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", r.Image, err)
		p.event(r.Pod, r.Container, corev1.EventTypeWarning, "InspectFailed", message)
		return nil, none, &Error{InvalidImageName, message, recheck}
	}
	spec := &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: r.Image, RuntimeHandler: r.RuntimeHandler}
	image, err := p.status(ctx, spec)
	if err != nil {
		message := fmt.Sprintf("Failed to inspect image %q: %v", r.Image, cri.ErrorText(err))
		p.event(r.Pod, r.Container, corev1.EventTypeWarning, "InspectFailed", message)
		return nil, none, &Error{ImageInspectError, message, recheck}
	}
	switch {
	case r.Policy == corev1.PullNever && image == nil:
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		p.event(r.Pod, r.Container, corev1.EventTypeWarning, ErrImageNeverPull, message)
		return nil, none, &Error{ErrImageNeverPull, message, recheck}
	case image != nil && r.Policy != corev1.PullAlways:
		p.event(r.Pod, r.Container, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
	default:
		if image, err = p.pull(ctx, r, spec); err != nil {
			return nil, none, err
		}
	}
	p.used(image.Id)
	user := criconfig.ImageUser{Username: image.Username}
	if image.Uid != nil {
		user.UID = &image.Uid.Value
	}
	return &runtimeapi.ImageSpec{Image: image.Id, UserSpecifiedImage: r.Image, RuntimeHandler: r.RuntimeHandler}, user, nil
}

func (p *Puller) status(ctx context.Context, spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	answer, err := p.client.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return nil, err
	}
	if answer.Image == nil || answer.Image.Id == "" {
		return nil, nil
	}
	return answer.Image, nil
}

// pull pulls the image, with each of the matching credentials until one is accepted.
func (p *Puller) pull(ctx context.Context, r *Request, spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	k := key{r.Pod.UID, r.Image}
	if left, cause := p.remaining(k); left > 0 {
		message := fmt.Sprintf("Back-off pulling image %q", r.Image)
		p.event(r.Pod, r.Container, corev1.EventTypeNormal, "BackOff", message)
		return nil, &Error{ImagePullBackOff, fmt.Sprintf("%s: %s: %s", message, ErrImagePull, cause), left}
	}
	p.event(r.Pod, r.Container, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	began := time.Now()
	credentials, err := Credentials(spec.Image, r.Secrets)
	if err == nil {
		err = p.try(ctx, r, spec, credentials)
	}
	var image *runtimeapi.Image
	if err == nil {
		if image, err = p.status(ctx, spec); err == nil && image == nil {
			err = fmt.Errorf("image %q vanished after it was pulled", r.Image)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, &Error{ErrImagePull, ctx.Err().Error(), 0}
		}
		text := cri.ErrorText(err)
		p.event(r.Pod, r.Container, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, text))
		p.failed(k, text)
		return nil, &Error{ErrImagePull, text, settle}
	}
	p.mu.Lock()
	delete(p.backoff, k)
	p.mu.Unlock()
	took := time.Since(began).Truncate(time.Millisecond)
	p.event(r.Pod, r.Container, corev1.EventTypeNormal, "Pulled",
		fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", r.Image, took, took, image.Size))
	return image, nil
}

func (p *Puller) try(ctx context.Context, r *Request, spec *runtimeapi.ImageSpec, credentials []*runtimeapi.AuthConfig) error {
	if len(credentials) == 0 {
		credentials = []*runtimeapi.AuthConfig{nil}
	}
	var first error
	for _, auth := range credentials {
		_, err := p.client.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: r.Sandbox})
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// remaining is how long the image is not to be pulled yet, and why.
func (p *Puller) remaining(k key) (time.Duration, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.backoff[k]
	return time.Until(w.until), w.cause
}

// failed makes the next attempt wait, for twice as long as the last.
func (p *Puller) failed(k key, cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delay := firstBackoff
	if w, ok := p.backoff[k]; ok {
		delay = min(2*w.delay, lastBackoff)
	}
	p.backoff[k] = wait{delay, time.Now().Add(delay), cause}
}

// Forget drops what is known of a pod that is gone.
func (p *Puller) Forget(pod types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.backoff, func(k key, _ wait) bool { return k.pod == pod })
}

// Normalize gives an image without tag or digest the tag latest, and refuses what is no name of an image.
func Normalize(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %v", name, err)
	}
	_, tagged := named.(reference.Tagged)
	_, digested := named.(reference.Digested)
	if !tagged && !digested {
		return strings.TrimSuffix(name, ":") + ":latest", nil
	}
	return name, nil
}
