package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *podValidator) affinity(path *field.Path) {
	a := v.spec.Affinity
	if a == nil {
		return
	}
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			v.addAll(validateNodeSelector(n.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required), v.oldAffinityHasInvalidValues()))
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			term, at := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child(preferred).Index(i)
			v.weight(term.Weight, at)
			// A preference with values that no label can have is one that no node meets, and always was accepted.
			v.addAll(validateNodeSelectorTerm(&term.Preference, at.Child("preference"), true))
		}
	}
	if p := a.PodAffinity; p != nil {
		at := path.Child("podAffinity")
		v.podAffinityTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))
		v.weightedTerms(p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child(preferred))
	}
	if p := a.PodAntiAffinity; p != nil {
		at := path.Child("podAntiAffinity")
		v.podAffinityTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))
		v.weightedTerms(p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child(preferred))
	}
}

func (v *podValidator) weight(weight int32, at *field.Path) {
	if weight <= 0 || weight > 100 {
		v.add(field.Invalid(at.Child("weight"), weight, "must be in the range 1-100"))
	}
}

func (v *podValidator) weightedTerms(terms []corev1.WeightedPodAffinityTerm, path *field.Path) {
	for i := range terms {
		v.weight(terms[i].Weight, path.Index(i))
		v.podAffinityTerm(&terms[i].PodAffinityTerm, path.Index(i).Child("podAffinityTerm"))
	}
}

func (v *podValidator) podAffinityTerms(terms []corev1.PodAffinityTerm, path *field.Path) {
	for i := range terms {
		v.podAffinityTerm(&terms[i], path.Index(i))
	}
}

func (v *podValidator) podAffinityTerm(term *corev1.PodAffinityTerm, path *field.Path) {
	v.labelSelector(term.LabelSelector, path.Child("labelSelector"))
	v.labelSelector(term.NamespaceSelector, path.Child("namespaceSelector"))
	for _, namespace := range term.Namespaces {
		v.invalid(path.Child("namespace"), namespace, apivalidation.ValidateNamespaceName(namespace, false))
	}
	v.labelKeys(term.MatchLabelKeys, term.LabelSelector, true, path.Child("matchLabelKeys"))
	// What must not match may well be narrowed further by the selector.
	v.labelKeys(term.MismatchLabelKeys, term.LabelSelector, false, path.Child("mismatchLabelKeys"))
	for i, key := range term.MatchLabelKeys {
		if slices.Contains(term.MismatchLabelKeys, key) {
			v.add(field.Invalid(path.Child("matchLabelKeys").Index(i), key,
				"exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	if term.TopologyKey == "" {
		v.add(field.Required(path.Child("topologyKey"), "can not be empty"))
	}
	v.addAll(metav1validation.ValidateLabelName(term.TopologyKey, path.Child("topologyKey")))
}

func (v *podValidator) labelSelector(selector *metav1.LabelSelector, path *field.Path) {
	if selector == nil {
		return
	}
	// What is stored with label values that are refused by now can still be updated.
	opts := metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: v.Old != nil && hasInvalidSelector(v.Old)}
	v.addAll(metav1validation.ValidateLabelSelector(selector, opts, path))
}

// hasInvalidSelector says whether a spec has label values in selectors that are refused today.
func hasInvalidSelector(spec *corev1.PodSpec) bool {
	for i := range spec.TopologySpreadConstraints {
		if metav1validation.LabelSelectorHasInvalidLabelValue(spec.TopologySpreadConstraints[i].LabelSelector) {
			return true
		}
	}
	var found bool
	eachAffinityTerm(spec.Affinity, func(term *corev1.PodAffinityTerm) {
		found = found || metav1validation.LabelSelectorHasInvalidLabelValue(term.LabelSelector) ||
			metav1validation.LabelSelectorHasInvalidLabelValue(term.NamespaceSelector)
	})
	return found
}

func eachAffinityTerm(a *corev1.Affinity, f func(*corev1.PodAffinityTerm)) {
	if a == nil {
		return
	}
	each := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			f(&required[i])
		}
		for i := range preferred {
			f(&preferred[i].PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		each(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		each(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// labelKeys checks matchLabelKeys and mismatchLabelKeys. exclusive says that a key must not be in the selector, too; when a
// Pod is created its own values of matchLabelKeys are added to the selector, so only there it may.
func (v *podValidator) labelKeys(keys []string, selector *metav1.LabelSelector, exclusive bool, path *field.Path) {
	if len(keys) == 0 {
		return
	}
	if selector == nil {
		v.add(field.Forbidden(path, "must not be specified when labelSelector is not set"))
		return
	}
	for i, key := range keys {
		v.addAll(metav1validation.ValidateLabelName(key, path.Index(i)))
		if exclusive && v.selects(selector, key) {
			v.add(field.Invalid(path.Index(i), key, "exists in both matchLabelKeys and labelSelector"))
		}
	}
}

// selects says whether the selector has the key by another way than having been merged from the pod's own labels.
func (v *podValidator) selects(selector *metav1.LabelSelector, key string) bool {
	if _, ok := selector.MatchLabels[key]; ok {
		return true
	}
	for _, e := range selector.MatchExpressions {
		if e.Key != key {
			continue
		}
		isMerged := v.Pod && v.meta != nil && e.Operator == metav1.LabelSelectorOpIn && len(e.Values) == 1 && e.Values[0] == v.meta.Labels[key]
		// A pod's labels may change after the merge, its spec may not.
		if !isMerged && v.Old == nil {
			return true
		}
	}
	return false
}

// validateNodeSelector checks a selector of nodes: that of a pod's affinity, or of a volume's. anyValue lets values pass that no
// label can have.
func validateNodeSelector(selector *corev1.NodeSelector, path *field.Path, anyValue bool) field.ErrorList {
	path = path.Child("nodeSelectorTerms")
	if len(selector.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(path, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range selector.NodeSelectorTerms {
		errs = append(errs, validateNodeSelectorTerm(&selector.NodeSelectorTerms[i], path.Index(i), anyValue)...)
	}
	return errs
}

// oldAffinityHasInvalidValues: what is stored with such values can still be updated.
func (v *podValidator) oldAffinityHasInvalidValues() bool {
	if v.Old == nil {
		return false
	}
	n := nodeAffinityOf(v.Old)
	return n != nil && hasInvalidNodeValues(n.RequiredDuringSchedulingIgnoredDuringExecution)
}

func hasInvalidNodeValues(selector *corev1.NodeSelector) bool {
	if selector == nil {
		return false
	}
	for i := range selector.NodeSelectorTerms {
		for _, e := range selector.NodeSelectorTerms[i].MatchExpressions {
			if slices.ContainsFunc(e.Values, func(value string) bool { return len(content.IsLabelValue(value)) > 0 }) {
				return true
			}
		}
	}
	return false
}

func validateNodeSelectorTerm(term *corev1.NodeSelectorTerm, path *field.Path, anyValue bool) field.ErrorList {
	var errs field.ErrorList
	for i := range term.MatchExpressions {
		errs = append(errs, validateNodeExpression(&term.MatchExpressions[i], path.Child("matchExpressions").Index(i), anyValue)...)
	}
	for i := range term.MatchFields {
		errs = append(errs, validateNodeField(&term.MatchFields[i], path.Child("matchFields").Index(i))...)
	}
	return errs
}

func validateNodeExpression(r *corev1.NodeSelectorRequirement, path *field.Path, anyValue bool) field.ErrorList {
	var errs field.ErrorList
	values := path.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(values, "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	errs = append(errs, metav1validation.ValidateLabelName(r.Key, path.Child("key"))...)
	if anyValue {
		return errs
	}
	for i, value := range r.Values {
		for _, message := range content.IsLabelValue(value) {
			errs = append(errs, field.Invalid(values.Index(i), value, message))
		}
	}
	return errs
}

// validateNodeField checks a requirement on a field of the node, of which there is one: its name.
func validateNodeField(r *corev1.NodeSelectorRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(path.Child("values"),
				"must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	if r.Key != metav1.ObjectNameField {
		return append(errs, field.Invalid(path.Child("key"), r.Key, "not a valid field selector key"))
	}
	for i, value := range r.Values {
		for _, message := range apivalidation.NameIsDNSSubdomain(value, false) {
			errs = append(errs, field.Invalid(path.Child("values").Index(i), value, message))
		}
	}
	return errs
}

func (v *podValidator) tolerations(tolerations []corev1.Toleration, path *field.Path) {
	for i := range tolerations {
		t, at := &tolerations[i], path.Index(i)
		if t.Key != "" {
			v.addAll(metav1validation.ValidateLabelName(t.Key, at.Child("key")))
		} else if t.Operator != corev1.TolerationOpExists {
			v.add(field.Invalid(at.Child("operator"), t.Operator,
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			v.add(field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if messages := content.IsLabelValue(t.Value); len(messages) > 0 {
				v.add(field.Invalid(at.Child("operator"), t.Value, strings.Join(messages, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				v.add(field.Invalid(at.Child("operator"), *t, "value must be empty when `operator` is 'Exists'"))
			}
		case corev1.TolerationOpLt, corev1.TolerationOpGt:
			v.invalid(at.Child("value"), t.Value, content.IsDecimalInteger(t.Value))
		default:
			v.add(field.NotSupported(at.Child("operator"), t.Operator, []corev1.TolerationOperator{
				corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt}))
		}
		if t.Effect != "" {
			optionalEnum(v, at.Child("effect"), t.Effect,
				corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		}
	}
}

func (v *podValidator) topologySpread(path *field.Path) {
	for i := range v.spec.TopologySpreadConstraints {
		c, at := &v.spec.TopologySpreadConstraints[i], path.Index(i)
		if c.MaxSkew <= 0 {
			v.add(field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			v.add(field.Required(at.Child("topologyKey"), "can not be empty"))
		}
		optionalEnum(v, at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		repeated := slices.ContainsFunc(v.spec.TopologySpreadConstraints[i+1:], func(o corev1.TopologySpreadConstraint) bool {
			return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
		})
		if repeated {
			v.add(field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
		}
		if n := c.MinDomains; n != nil {
			if *n <= 0 {
				v.add(field.Invalid(at.Child("minDomains"), *n, "must be greater than zero"))
			}
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				v.add(field.Invalid(at.Child("minDomains"), *n, fmt.Sprintf(
					"can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		if p := c.NodeAffinityPolicy; p != nil {
			optionalEnum(v, at.Child("nodeAffinityPolicy"), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		}
		if p := c.NodeTaintsPolicy; p != nil {
			optionalEnum(v, at.Child("nodeTaintsPolicy"), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		}
		v.labelKeys(c.MatchLabelKeys, c.LabelSelector, true, at.Child("matchLabelKeys"))
		v.labelSelector(c.LabelSelector, at.Child("labelSelector"))
	}
}

func (v *podValidator) readinessGates(path *field.Path) {
	for i, gate := range v.spec.ReadinessGates {
		v.invalid(path.Index(i).Child("conditionType"), gate.ConditionType, validation.IsQualifiedName(string(gate.ConditionType)))
	}
}

func (v *podValidator) schedulingGates(path *field.Path) {
	seen := sets.Set[string]{}
	for i, gate := range v.spec.SchedulingGates {
		v.invalid(path.Index(i), gate.Name, validation.IsQualifiedName(gate.Name))
		if seen.Has(gate.Name) {
			v.add(field.Duplicate(path.Index(i), gate.Name))
		}
		seen.Insert(gate.Name)
	}
}
