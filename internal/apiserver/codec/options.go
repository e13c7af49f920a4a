package codec

import (
	stdjson "encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// DecodeDeleteOptions reads the options of a deletion. Clients send them under the version of any group, which is the
// same to us.
func (t *Types) DecodeDeleteOptions(body []byte, enc Encoding) (*metav1.DeleteOptions, error) {
	options := &metav1.DeleteOptions{}
	if enc == Protobuf {
		var envelope runtime.Unknown
		if !IsProto(body) {
			return nil, apierrors.NewBadRequest(errNoEnvelope.Error())
		}
		if err := envelope.Unmarshal(body[len(protoMagic):]); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if err := options.Unmarshal(envelope.Raw); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		options.APIVersion, options.Kind = envelope.APIVersion, envelope.Kind
		return options, checkOptions(options)
	}
	if enc == YAML {
		converted, err := yaml.YAMLToJSON(body)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		body = converted
	}
	if err := stdjson.Unmarshal(body, options); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return options, checkOptions(options)
}

func checkOptions(options *metav1.DeleteOptions) error {
	if options.Kind != "" && options.Kind != "DeleteOptions" {
		return apierrors.NewBadRequest("decoded object cannot be converted to DeleteOptions")
	}
	return nil
}
