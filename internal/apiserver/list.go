package apiserver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	internalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
	"github.com/proa-k8s/proa/internal/store"
)

// get serves GET of one object.
func (s *Server) get(q *request) error {
	var options metav1.GetOptions
	if values := q.query(); len(values) > 0 {
		if err := metav1.Convert_url_Values_To_v1_GetOptions(&values, &options, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	minRev := int64(-1)
	if options.ResourceVersion != "" {
		rev, err := parseRevision(options.ResourceVersion)
		if err != nil {
			return err
		}
		minRev = rev
	}
	o, err := q.ep.cache.Get(q.ctx(), q.namespace(), q.info.Name, minRev)
	if err != nil {
		return s.readError(q, err, minRev, q.info.Name)
	}
	if q.sub != nil && q.sub.Scale != nil {
		return s.sendScale(q, 200, o)
	}
	return s.sendStored(q, 200, o)
}

// readError turns the store's errors of a read into those for clients.
func (s *Server) readError(q *request, err error, rev int64, name string) error {
	if errors.Is(err, store.ErrFuture) {
		present, revErr := s.config.Store.Rev(q.ctx())
		if revErr != nil {
			return apiError(revErr, q.ep.gr, name)
		}
		return errFutureRevision(rev, present)
	}
	return apiError(err, q.ep.gr, name)
}

// parseRevision reads a resourceVersion.
func parseRevision(text string) (int64, error) {
	rev, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		invalid := field.Invalid(field.NewPath("resourceVersion"), text, err.Error())
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", invalid))
	}
	return int64(rev), nil
}

// listOptions reads the options of a list or watch from the query and checks them.
func (s *Server) listOptions(q *request) (*internalversion.ListOptions, error) {
	o := &internalversion.ListOptions{}
	if values := q.query(); len(values) > 0 {
		if err := internalscheme.ParameterCodec.DecodeParameters(values, metav1.SchemeGroupVersion, o); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if q.info.Verb == "watch" {
		o.Watch = true
	}
	internalversion.SetListOptionsDefaults(o, true)
	if errs := internalvalidation.ValidateListOptions(o, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(errKind("ListOptions"), "", errs)
	}
	if o.FieldSelector != nil {
		var err error
		if o.FieldSelector, err = o.FieldSelector.Transform(q.ep.hubField); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	return o, q.selectName(o)
}

// selectName restricts a list or watch to the name in the URL (the deprecated watch of one object).
func (q *request) selectName(o *internalversion.ListOptions) error {
	if q.info.Name == "" {
		return nil
	}
	if o.FieldSelector == nil || o.FieldSelector.Empty() {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, q.info.Name)
		return nil
	}
	if name, ok := o.FieldSelector.RequiresExactMatch(metav1.ObjectNameField); !ok || name != q.info.Name {
		return apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
	}
	return nil
}

// hubField gives the field of the hub that a label of a field selector stands for, and the value as it is.
func (ep *endpoint) hubField(label, value string) (field, same string, err error) {
	if label == "metadata.name" || label == "metadata.namespace" {
		return label, value, nil
	}
	field = label
	if names := ep.version.FieldNames; names != nil {
		field = names[label]
	}
	if !slices.Contains(ep.SelectableFields, field) {
		return "", "", errors.New(unsupportedLabel(ep, label))
	}
	return field, value, nil
}

// unsupportedLabel is upstream's text: kinds with field selectors of their own say it another way.
func unsupportedLabel(ep *endpoint, label string) string {
	if len(ep.SelectableFields) > 0 {
		return "field label not supported: " + label
	}
	return fmt.Sprintf("%q is not a known field selector: only %q, %q", label, "metadata.name", "metadata.namespace")
}

// serveList serves GET of a list.
func (s *Server) serveList(q *request) error {
	if q.media.Convert.Kind == "PartialObjectMetadata" {
		return negotiate.NotAcceptable("you requested PartialObjectMetadata, but the requested object is a list (%sList)", goType(q.ep))
	}
	o, err := s.listOptions(q)
	if err != nil {
		return err
	}
	found, err := s.list(q, o)
	if err != nil {
		return err
	}
	return s.sendList(q, found, strconv.FormatInt(found.Rev, 10))
}

// list reads a list from the store.
func (s *Server) list(q *request, o *internalversion.ListOptions) (*store.List, error) {
	opts := store.ListOptions{
		Namespace: q.namespace(), Labels: o.LabelSelector, Fields: o.FieldSelector, Limit: o.Limit,
	}
	if err := revisionOf(o, &opts); err != nil {
		return nil, err
	}
	found, err := q.ep.cache.List(q.ctx(), opts)
	if errors.Is(err, store.ErrExpired) && o.Continue != "" {
		return nil, expiredContinue(opts.Continue)
	}
	if err != nil {
		return nil, s.readError(q, err, opts.Rev, "")
	}
	return found, nil
}

// revisionOf decides on the state that a list reads, by the table in the API concepts ("resource versions").
func revisionOf(o *internalversion.ListOptions, opts *store.ListOptions) error {
	if o.Continue != "" {
		if o.ResourceVersion != "" && o.ResourceVersion != "0" {
			return apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		key, rev, err := decodeContinue(o.Continue)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: %v", err))
		}
		opts.Continue = key
		if rev > 0 {
			opts.Match, opts.Rev = store.MatchExact, rev
		}
		return nil
	}
	if o.ResourceVersion == "" {
		return nil
	}
	rev, err := parseRevision(o.ResourceVersion)
	if err != nil {
		return err
	}
	opts.Rev, opts.Match = rev, store.MatchNotOlder
	if o.ResourceVersionMatch == metav1.ResourceVersionMatchExact || o.ResourceVersionMatch == "" && rev > 0 && o.Limit > 0 {
		opts.Match = store.MatchExact
	}
	return nil
}

// expiredContinue is the error for a token whose state is gone, with a fresh token for the rest in the latest state.
func expiredContinue(lastKey string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start " +
		"a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
		"Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the " +
		"time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = encodeContinue(lastKey, -1)
	return err
}
