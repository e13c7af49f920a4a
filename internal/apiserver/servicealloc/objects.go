package servicealloc

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/proa-k8s/proa/internal/store"
)

// managedBy is upstream's name for what claims cluster IPs.
const managedBy = "ipallocator.k8s.io"

// portsPrefix is where claims of node ports are, below upstream's bitmap.
const portsPrefix = "ranges/servicenodeports"

func ipKey(name string) string         { return "/registry/ipaddresses/" + name }
func portKey(port int32) string        { return "/registry/" + portsPrefix + "/" + portName(port) }
func portName(port int32) string       { return strconv.Itoa(int(port)) }
func owner(svc *corev1.Service) string { return svc.Namespace + "/" + svc.Name }

// newIPAddress is the claim of a cluster IP.
func newIPAddress(svc *corev1.Service, ip netip.Addr) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{
			Name:              ip.String(),
			UID:               types.UID(uuid.NewUUID()),
			CreationTimestamp: metav1.Now().Rfc3339Copy(),
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(familyOf(ip)),
				networkingv1.LabelManagedBy:       managedBy,
			},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
			Resource: "services", Namespace: svc.Namespace, Name: svc.Name,
		}},
	}
}

// ownsIP returns whether the claim is the service's.
func ownsIP(svc *corev1.Service, claim *store.Object) (bool, error) {
	obj, err := claim.Decoded()
	if err != nil {
		return false, err
	}
	parent := obj.(*networkingv1.IPAddress).Spec.ParentRef
	return parent != nil && parent.Group == "" && parent.Resource == "services" &&
		parent.Namespace == svc.Namespace && parent.Name == svc.Name, nil
}

// newPortClaim is the claim of a node port: a range of one, with its owner as data.
func newPortClaim(svc *corev1.Service, port int32) *corev1.RangeAllocation {
	return &corev1.RangeAllocation{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "RangeAllocation"},
		ObjectMeta: metav1.ObjectMeta{Name: portName(port)},
		Range:      portName(port),
		Data:       []byte(owner(svc)),
	}
}

func ownsPort(svc *corev1.Service, claim *store.Object) (bool, error) {
	obj, err := claim.Decoded()
	if err != nil {
		return false, err
	}
	return string(obj.(*corev1.RangeAllocation).Data) == owner(svc), nil
}

// encode gives the bytes of a claim in upstream's encoding of stored objects.
func encode(obj runtime.Object) ([]byte, error) {
	var buf bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(obj, &buf); err != nil {
		return nil, fmt.Errorf("encoding a claim: %w", err)
	}
	return buf.Bytes(), nil
}

// portClaims tells the store of the claims of node ports, which are not served.
func portClaims() store.Resource {
	return store.Resource{
		Prefix: portsPrefix,
		Encode: encode,
		Decode: func(data []byte) (runtime.Object, error) { return decodePortClaim(data) },
		Fields: func(obj runtime.Object) fields.Set {
			return fields.Set{"metadata.name": obj.(*corev1.RangeAllocation).Name}
		},
	}
}

func decodePortClaim(data []byte) (*corev1.RangeAllocation, error) {
	raw, ok := bytes.CutPrefix(data, []byte("k8s\x00"))
	if !ok {
		return nil, errors.New("decoding the claim of a node port: it is not in the encoding of stored objects")
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decoding the claim of a node port: %w", err)
	}
	claim := &corev1.RangeAllocation{}
	if err := claim.Unmarshal(envelope.Raw); err != nil {
		return nil, fmt.Errorf("decoding the claim of a node port: %w", err)
	}
	return claim, nil
}
