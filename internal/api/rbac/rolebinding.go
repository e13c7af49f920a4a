package rbac

import (
	"context"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// RoleBinding describes rolebindings.
func RoleBinding() *api.Resource {
	return api.Define[rbacv1.RoleBinding, rbacv1.RoleBindingList](rbacv1.SchemeGroupVersion, api.Resource{
		Plural: "rolebindings", Singular: "rolebinding", Kind: "RoleBinding",
		Namespaced: true,
		Prefix:     "rolebindings",
		Strategy: api.Typed[*rbacv1.RoleBinding]{
			Default: func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) },
			Validate: func(_ context.Context, b *rbacv1.RoleBinding) field.ErrorList {
				return validateBinding(b.RoleRef, b.Subjects, true)
			},
			ValidateUpdate: func(_ context.Context, b, old *rbacv1.RoleBinding) field.ErrorList {
				return append(keepsRole(b.RoleRef, old.RoleRef), validateBinding(b.RoleRef, b.Subjects, true)...)
			},
			AllowCreateOnUpdate: true,
			ValidateName:        api.ValidatePathSegmentName,
		}.Strategy(),
		Columns: bindingColumns("roleBinding"),
		Row: api.Row(func(b *rbacv1.RoleBinding) []any {
			return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects)
		}),
	})
}

// ClusterRoleBinding describes clusterrolebindings.
func ClusterRoleBinding() *api.Resource {
	return api.Define[rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](rbacv1.SchemeGroupVersion, api.Resource{
		Plural: "clusterrolebindings", Singular: "clusterrolebinding", Kind: "ClusterRoleBinding",
		Prefix: "clusterrolebindings",
		Strategy: api.Typed[*rbacv1.ClusterRoleBinding]{
			Default: func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) },
			Validate: func(_ context.Context, b *rbacv1.ClusterRoleBinding) field.ErrorList {
				return validateBinding(b.RoleRef, b.Subjects, false)
			},
			ValidateUpdate: func(_ context.Context, b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
				return append(keepsRole(b.RoleRef, old.RoleRef), validateBinding(b.RoleRef, b.Subjects, false)...)
			},
			AllowCreateOnUpdate: true,
			ValidateName:        api.ValidatePathSegmentName,
		}.Strategy(),
		Columns: bindingColumns("clusterRoleBinding"),
		Row: api.Row(func(b *rbacv1.ClusterRoleBinding) []any {
			return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects)
		}),
	})
}

func defaultBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if role.APIGroup == "" {
		role.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		subject := &subjects[i]
		if subject.APIGroup == "" && (subject.Kind == rbacv1.UserKind || subject.Kind == rbacv1.GroupKind) {
			subject.APIGroup = rbacv1.GroupName
		}
	}
}

func keepsRole(role, old rbacv1.RoleRef) field.ErrorList {
	if role == old {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), role, "cannot change roleRef")}
}

// validateBinding checks a binding; that of a namespace may only name a role of the cluster or of its own namespace.
func validateBinding(role rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	at := field.NewPath("roleRef")
	errs := api.ValidateSupported(at.Child("apiGroup"), role.APIGroup, rbacv1.GroupName)
	if namespaced {
		errs = append(errs, api.ValidateSupported(at.Child("kind"), role.Kind, "Role", "ClusterRole")...)
	} else {
		errs = append(errs, api.ValidateSupported(at.Child("kind"), role.Kind, "ClusterRole")...)
	}
	if role.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, api.InvalidAll(at.Child("name"), role.Name, api.ValidatePathSegmentName(role.Name, false))...)
	}
	for i := range subjects {
		errs = append(errs, validateSubject(&subjects[i], namespaced, field.NewPath("subjects").Index(i))...)
	}
	return errs
}

func validateSubject(subject *rbacv1.Subject, namespaced bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if subject.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	switch subject.Kind {
	case rbacv1.ServiceAccountKind:
		if subject.Name != "" {
			errs = append(errs, api.InvalidAll(at.Child("name"), subject.Name, apivalidation.ValidateServiceAccountName(subject.Name, false))...)
		}
		errs = append(errs, api.ValidateSupported(at.Child("apiGroup"), subject.APIGroup, "")...)
		if !namespaced && subject.Namespace == "" {
			errs = append(errs, field.Required(at.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		errs = append(errs, api.ValidateSupported(at.Child("apiGroup"), subject.APIGroup, rbacv1.GroupName)...)
	default:
		errs = append(errs, api.ValidateSupported(at.Child("kind"), subject.Kind,
			rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind)...)
	}
	return errs
}

func bindingColumns(what string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Role", "string", rbacv1.RoleBinding{}.SwaggerDoc()["roleRef"]),
		api.AgeColumn(),
		api.WideColumn("Users", "string", "Users in the "+what),
		api.WideColumn("Groups", "string", "Groups in the "+what),
		api.WideColumn("ServiceAccounts", "string", "ServiceAccounts in the "+what),
	}
}

func bindingRow(meta *metav1.ObjectMeta, role rbacv1.RoleRef, subjects []rbacv1.Subject) []any {
	var users, groups, accounts []string
	for _, subject := range subjects {
		switch subject.Kind {
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, subject.Namespace+"/"+subject.Name)
		case rbacv1.UserKind:
			users = append(users, subject.Name)
		case rbacv1.GroupKind:
			groups = append(groups, subject.Name)
		}
	}
	return []any{
		meta.Name, role.Kind + "/" + role.Name, api.Since(meta.CreationTimestamp),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}
