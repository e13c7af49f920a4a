package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
	"github.com/proa-k8s/proa/internal/apiserver/patch"
)

// patchTypes are those that are accepted, in upstream's order.
var patchTypes = []string{
	string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType),
}

// patch serves PATCH.
func (s *Server) patch(q *request) error {
	kind, err := patchType(q.http)
	if err != nil {
		return err
	}
	body, err := q.body()
	if err != nil {
		return err
	}
	var options metav1.PatchOptions
	values := q.query()
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(&values, &options, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if errs := metav1validation.ValidatePatchOptions(&options, kind); len(errs) > 0 {
		return apierrors.NewInvalid(errKind("PatchOptions"), "", errs)
	}
	if err := checkSyntax(body, kind); err != nil {
		return err
	}
	p := patcher{s: s, q: q, kind: kind, body: body, options: &options}
	if q.sub != nil && q.sub.Scale != nil {
		return s.patchScale(&p)
	}
	update := metav1.UpdateOptions{DryRun: options.DryRun, FieldManager: options.FieldManager, FieldValidation: options.FieldValidation}
	update.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	apply := kind == types.ApplyYAMLPatchType
	made, created, err := s.change(q, change{
		name: q.info.Name, dryRun: isDryRun(options.DryRun), next: p.next,
		creates: apply && q.sub == nil, applied: apply,
		createOptions: createOptionsOf(update), updateOptions: &update,
	})
	if err != nil {
		return err
	}
	return made.send(s, q, statusCode(created))
}

func patchType(r *http.Request) (types.PatchType, error) {
	header, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	for _, known := range patchTypes {
		if header == known {
			return types.PatchType(header), nil
		}
	}
	return "", negotiate.Unsupported(patchTypes)
}

// checkSyntax refuses a patch that can't be read, before anything else is done with it.
func checkSyntax(body []byte, kind types.PatchType) error {
	if kind != types.ApplyYAMLPatchType {
		if !json.Valid(body) {
			return apierrors.NewBadRequest("invalid JSON patch")
		}
		return nil
	}
	if _, err := utilyaml.ToJSON(body); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("error encoding patch: %v", err))
	}
	return nil
}

// patcher applies one request's patch, as often as somebody else is faster.
type patcher struct {
	s       *Server
	q       *request
	kind    types.PatchType
	body    []byte
	options *metav1.PatchOptions
}

func (p *patcher) directive() string { return fieldValidation(p.options.FieldValidation) }

// next makes the patched object of the present one; of none for an apply.
func (p *patcher) next(cur runtime.Object) (runtime.Object, error) {
	obj, err := p.patched(cur)
	if err != nil {
		return nil, err
	}
	if cur == nil {
		return obj, nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if err := matchNamespace(m, p.q.namespace()); err != nil {
		return nil, err
	}
	return obj, matchName(obj, p.q.info.Name)
}

func (p *patcher) patched(cur runtime.Object) (runtime.Object, error) {
	ep := p.q.ep
	if p.kind == types.ApplyYAMLPatchType {
		if cur == nil {
			cur = ep.New()
			cur.GetObjectKind().SetGroupVersionKind(ep.Hub.WithKind(ep.Kind))
		}
		return p.apply(p.q.manager(), cur)
	}
	versioned, err := codec.FromHub(ep.Resource, ep.version, cur)
	if err != nil {
		return nil, err
	}
	out := ep.version.New()
	flaws, err := patch.Apply(p.kind, p.body, versioned, out, p.directive() != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, err
	}
	if err := p.judge(flaws); err != nil {
		return nil, err
	}
	if kind := out.GetObjectKind().GroupVersionKind(); kind != ep.kind {
		return nil, p.wrongKind(kind.GroupVersion().String(), kind.Kind)
	}
	hub, err := codec.ToHub(ep.Resource, ep.version, out)
	if err != nil {
		return nil, err
	}
	return p.q.manager().Update(cur, hub, fieldmanager.Name(p.options.FieldManager, p.q.http.UserAgent()))
}

// judge treats what is wrong with a patch beyond being applicable as the client wants.
func (p *patcher) judge(flaws *patch.Flaws) error {
	if flaws == nil {
		return nil
	}
	if p.directive() == metav1.FieldValidationStrict {
		return flaws.Error()
	}
	for _, flaw := range flaws.Found {
		warnFlaw(p.q.ctx(), flaw)
	}
	return nil
}

// wrongKind says that a patch changes what can't change.
func (p *patcher) wrongKind(version, kind string) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the patch changes the object's type to %s in version %q: it must stay %s in version %q",
		kind, version, p.q.ep.Kind, p.q.ep.version.String()))
}

// apply merges an applied configuration.
func (p *patcher) apply(manager *fieldmanager.Manager, cur runtime.Object) (runtime.Object, error) {
	config := map[string]any{}
	if err := yaml.Unmarshal(p.body, &config); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	force := p.options.Force != nil && *p.options.Force
	obj, err := manager.Apply(cur, config, p.options.FieldManager, force)
	if err != nil {
		return nil, applyError(err)
	}
	if p.directive() == metav1.FieldValidationIgnore {
		return obj, nil
	}
	if err := yaml.UnmarshalStrict(p.body, &map[string]any{}); err != nil {
		if p.directive() == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
		}
		warnFlaw(p.q.ctx(), err)
	}
	return obj, nil
}

// applyError leaves errors for clients as they are. All others of an apply come from a configuration that doesn't fit the
// kind's schema, for which upstream answers with a plain error of code 500.
func applyError(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return negotiate.StatusErrorOf(metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: err.Error(),
	})
}
