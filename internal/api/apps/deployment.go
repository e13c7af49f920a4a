package apps

import (
	"context"
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// deploymentVersions are the versions in which deployments are served.
var deploymentVersions = []string{"apps/v1", "apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"}

// Deployment describes deployments.
func Deployment() *api.Resource {
	kind := appsv1.SchemeGroupVersion.WithKind("Deployment")
	return api.Define[appsv1.Deployment, appsv1.DeploymentList](appsv1.SchemeGroupVersion, api.Resource{
		Plural: "deployments", Singular: "deployment", Kind: "Deployment", ShortNames: []string{"deploy"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "deployments",
		Versions:   api.OrphanByDefault(deploymentBetas()...),
		Strategy: api.Typed[*appsv1.Deployment]{
			Default: defaultDeployment,
			PrepareCreate: func(_ context.Context, d *appsv1.Deployment) {
				d.Status = appsv1.DeploymentStatus{}
				d.Generation = 1
				core.PreparePodTemplate(&d.Spec.Template)
			},
			PrepareUpdate: func(_ context.Context, d, old *appsv1.Deployment) {
				d.Status = old.Status
				core.PreparePodTemplate(&d.Spec.Template)
				// Annotations count too: they are copied to the replica sets.
				if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
					d.Generation = old.Generation + 1
				}
			},
			Validate:       validateDeployment,
			ValidateUpdate: validateDeploymentUpdate,
			Warn: func(_ context.Context, d, old *appsv1.Deployment) []string {
				if old == nil {
					return warnWorkload(d.Name, &d.Spec.Template, nil)
				}
				if old.Generation == d.Generation {
					return nil
				}
				return warnWorkload(d.Name, &d.Spec.Template, &old.Spec.Template)
			},
			ResetFields: api.Reset(deploymentVersions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.ScaleOf(func(d *appsv1.Deployment) (int32, int32, string) {
				return ptr.Deref(d.Spec.Replicas, 1), d.Status.Replicas, selectorString(d.Spec.Selector)
			}, func(d *appsv1.Deployment, replicas int32) { d.Spec.Replicas = &replicas }),
			api.Status(kind, api.Typed[*appsv1.Deployment]{
				PrepareUpdate: func(_ context.Context, d, old *appsv1.Deployment) {
					d.Spec, d.Labels = old.Spec, old.Labels
				},
				ValidateUpdate: validateDeploymentStatusUpdate,
				ResetFields: api.Reset(deploymentVersions,
					fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata", "labels")),
			}.Strategy()),
		},
		Columns: deploymentColumns(),
		Row:     api.Row(deploymentRow),
	})
}

func defaultDeployment(d *appsv1.Deployment) {
	spec := &d.Spec
	core.DefaultPodTemplateSpec(&spec.Template)
	setIfNil(&spec.Replicas, 1)
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		setIfNil(&spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		setIfNil(&spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		setIfNil(&spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	setIfNil(&spec.RevisionHistoryLimit, 10)
	setIfNil(&spec.ProgressDeadlineSeconds, 600)
}

func setIfNil[T any](p **T, value T) {
	if *p == nil {
		v := value // a copy, so that nothing is allocated when there is nothing to set
		*p = &v
	}
}

func deploymentBetas() []api.Version {
	v1beta2 := api.NewVersion[appsv1beta2.Deployment, appsv1beta2.DeploymentList, appsv1.Deployment](
		appsv1beta2.SchemeGroupVersion, convertShape[*appsv1beta2.Deployment, *appsv1.Deployment], convertShape[*appsv1.Deployment, *appsv1beta2.Deployment])
	v1beta1 := api.NewVersion[appsv1beta1.Deployment, appsv1beta1.DeploymentList, appsv1.Deployment](
		appsv1beta1.SchemeGroupVersion, deploymentFromV1beta1, deploymentToV1beta1)
	v1beta1.Default = func(obj runtime.Object) {
		d := obj.(*appsv1beta1.Deployment)
		selectFromTemplate(&d.ObjectMeta, &d.Spec.Selector, &d.Spec.Template)
		setIfNil(&d.Spec.RevisionHistoryLimit, 2)
	}
	extensions := api.NewVersion[extensionsv1beta1.Deployment, extensionsv1beta1.DeploymentList, appsv1.Deployment](
		extensionsv1beta1.SchemeGroupVersion, deploymentFromExtensions, deploymentToExtensions)
	extensions.Default = func(obj runtime.Object) {
		d := obj.(*extensionsv1beta1.Deployment)
		selectFromTemplate(&d.ObjectMeta, &d.Spec.Selector, &d.Spec.Template)
		if d.Spec.Strategy.Type == "" {
			d.Spec.Strategy.Type = extensionsv1beta1.RollingUpdateDeploymentStrategyType
		}
		if d.Spec.Strategy.Type == extensionsv1beta1.RollingUpdateDeploymentStrategyType {
			setIfNil(&d.Spec.Strategy.RollingUpdate, extensionsv1beta1.RollingUpdateDeployment{})
			setIfNil(&d.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
			setIfNil(&d.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromInt32(1))
		}
		setIfNil(&d.Spec.RevisionHistoryLimit, math.MaxInt32)
		setIfNil(&d.Spec.ProgressDeadlineSeconds, math.MaxInt32)
	}
	return []api.Version{v1beta2, v1beta1, extensions}
}

func deploymentColumns() []metav1.TableColumnDefinition {
	status := appsv1.DeploymentStatus{}.SwaggerDoc()
	columns := []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Ready", "string", "Number of the pod with ready state"),
		api.Column("Up-to-date", "string", status["updatedReplicas"]),
		api.Column("Available", "string", status["availableReplicas"]),
		api.AgeColumn(),
	}
	columns = append(columns, templateColumns()...)
	return append(columns, api.WideColumn("Selector", "string", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"]))
}

func deploymentRow(d *appsv1.Deployment) []any {
	names, images := templateCells(&d.Spec.Template)
	return []any{
		d.Name,
		fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 1)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), api.Since(d.CreationTimestamp),
		names, images, api.SelectorCell(d.Spec.Selector),
	}
}
