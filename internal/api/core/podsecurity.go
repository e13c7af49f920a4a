package core

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	sysctlSegment   = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlFormat    = "(" + sysctlSegment + "[\\./])*" + sysctlSegment
	maxSysctlLength = 253

	maxAppArmorProfile = 4095
	maxGMSASpec        = 64 * 1024
	maxWindowsDomain   = 256
	maxWindowsUser     = 104
)

var (
	sysctlRegexp       = regexp.MustCompile("^" + sysctlFormat + "$")
	controlCharacters  = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOSDomain      = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	dnsDomain          = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	windowsUserInvalid = regexp.MustCompile(`["/\\:;|=,\+\*\?<>@\[\]]`)
	windowsUserDots    = regexp.MustCompile(`^[\. ]+$`)
)

func (v *podValidator) podSecurityContext(path *field.Path) {
	spec, sc := v.spec, v.spec.SecurityContext
	if spec.HostPID && spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace {
		v.add(field.Invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if sc == nil {
		return
	}
	v.userAndGroup(sc.RunAsUser, sc.RunAsGroup, path)
	if sc.FSGroup != nil {
		v.invalid(path.Child("fsGroup"), *sc.FSGroup, validation.IsValidGroupID(*sc.FSGroup))
	}
	for i, gid := range sc.SupplementalGroups {
		v.invalid(path.Child("supplementalGroups").Index(i), gid, validation.IsValidGroupID(gid))
	}
	if p := sc.SupplementalGroupsPolicy; p != nil {
		optionalEnum(v, path.Child("supplementalGroupsPolicy"), *p,
			corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	v.sysctls(sc.Sysctls, path.Child("sysctls"))
	if p := sc.FSGroupChangePolicy; p != nil {
		optionalEnum(v, path.Child("fsGroupChangePolicy"), *p, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	if p := sc.SELinuxChangePolicy; p != nil {
		optionalEnum(v, path.Child("seLinuxChangePolicy"), *p,
			corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
	}
	v.seccomp(sc.SeccompProfile, path.Child("seccompProfile"))
	v.windowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))
	v.appArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))
}

func (v *podValidator) userAndGroup(user, group *int64, path *field.Path) {
	if user != nil {
		v.invalid(path.Child("runAsUser"), *user, validation.IsValidUserID(*user))
	}
	if group != nil {
		v.invalid(path.Child("runAsGroup"), *group, validation.IsValidGroupID(*group))
	}
}

func (v *podValidator) sysctls(sysctls []corev1.Sysctl, path *field.Path) {
	seen := sets.Set[string]{}
	for i, s := range sysctls {
		at := path.Index(i).Child("name")
		name := strings.ReplaceAll(s.Name, "/", ".")
		switch {
		case s.Name == "":
			v.add(field.Required(at, ""))
		case len(s.Name) > maxSysctlLength || !sysctlRegexp.MatchString(s.Name):
			v.add(field.Invalid(at, s.Name,
				fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlLength, sysctlRegexp)))
		case seen.Has(s.Name):
			v.add(field.Duplicate(at, s.Name))
		}
		seen.Insert(s.Name)
		// A sysctl of a namespace that the pod shares with the host would change the host.
		if v.spec.HostNetwork && strings.HasPrefix(name, "net.") {
			v.add(field.Invalid(at, s.Name, "may not be specified when 'hostNetwork' is true"))
		}
		if v.spec.HostIPC && isIPCSysctl(name) {
			v.add(field.Invalid(at, s.Name, "may not be specified when 'hostIPC' is true"))
		}
	}
}

func isIPCSysctl(name string) bool {
	return name == "kernel.sem" || hasAnyPrefix(name, []string{"kernel.shm", "kernel.msg", "fs.mqueue."})
}

func (v *podValidator) containerSecurityContext(sc *corev1.SecurityContext, path *field.Path) {
	v.userAndGroup(sc.RunAsUser, sc.RunAsGroup, path)
	if p := sc.ProcMount; p != nil {
		optionalEnum(v, path.Child("procMount"), *p, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if *p == corev1.UnmaskedProcMount && (v.spec.HostUsers == nil || *v.spec.HostUsers) {
			v.add(field.Invalid(path.Child("procMount"), *p, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	v.seccomp(sc.SeccompProfile, path.Child("seccompProfile"))
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if sc.Privileged != nil && *sc.Privileged {
			v.add(field.Invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil {
			for _, c := range sc.Capabilities.Add {
				if c == "CAP_SYS_ADMIN" {
					v.add(field.Invalid(path, sc,
						"cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	v.windowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))
	v.appArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))
}

func (v *podValidator) seccomp(p *corev1.SeccompProfile, path *field.Path) {
	if p == nil {
		return
	}
	switch p.Type {
	case corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined:
	case "":
		v.add(field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	default:
		v.add(field.NotSupported(path.Child("type"), p.Type, []corev1.SeccompProfileType{
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined}))
	}
	at := path.Child("localhostProfile")
	switch {
	case p.Type != corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile != nil {
			v.add(field.Invalid(at, *p.LocalhostProfile, "can only be set when seccomp type is Localhost"))
		}
	case p.LocalhostProfile == nil:
		v.add(field.Required(at, "must be set when seccomp type is Localhost"))
	default:
		v.localDescendingPath(*p.LocalhostProfile, at)
	}
}

func (v *podValidator) appArmor(p *corev1.AppArmorProfile, path *field.Path) {
	if p == nil {
		return
	}
	at := path.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		switch {
		case p.LocalhostProfile == nil || strings.TrimSpace(*p.LocalhostProfile) == "":
			v.add(field.Required(at, "must be set when AppArmor type is Localhost"))
		case strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile:
			v.add(field.Invalid(at, *p.LocalhostProfile, "must not be padded with whitespace"))
		}
		if p.LocalhostProfile != nil && len(*p.LocalhostProfile) > maxAppArmorProfile {
			v.add(field.TooLong(at, *p.LocalhostProfile, maxAppArmorProfile))
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			v.add(field.Invalid(at, *p.LocalhostProfile, "can only be set when AppArmor type is Localhost"))
		}
	case "":
		v.add(field.Required(path.Child("type"), "type is required when appArmorProfile is set"))
	default:
		v.add(field.NotSupported(path.Child("type"), p.Type, []corev1.AppArmorProfileType{
			corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined}))
	}
}

func (v *podValidator) windowsOptions(o *corev1.WindowsSecurityContextOptions, path *field.Path) {
	if o == nil {
		return
	}
	if o.GMSACredentialSpecName != nil {
		v.invalid(path.Child("gmsaCredentialSpecName"), *o.GMSACredentialSpecName,
			validation.IsDNS1123Subdomain(*o.GMSACredentialSpecName))
	}
	if spec := o.GMSACredentialSpec; spec != nil {
		at := path.Child("gmsaCredentialSpec")
		if *spec == "" {
			v.add(field.Invalid(at, *spec, "gmsaCredentialSpec cannot be an empty string"))
		} else if len(*spec) > maxGMSASpec {
			v.add(field.Invalid(at, *spec, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxGMSASpec/1024)))
		}
	}
	if o.RunAsUserName != nil {
		v.windowsUser(*o.RunAsUserName, path.Child("runAsUserName"))
	}
}

// windowsUser checks a user name of Windows: USER or DOMAIN\USER.
func (v *podValidator) windowsUser(name string, path *field.Path) {
	reject := func(detail string) { v.add(field.Invalid(path, name, detail)) }
	switch {
	case name == "":
		reject("runAsUserName cannot be an empty string")
		return
	case controlCharacters.MatchString(name):
		reject("runAsUserName cannot contain control characters")
		return
	}
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		domain, user = "", name
	}
	if strings.Contains(user, `\`) {
		reject("runAsUserName cannot contain more than one backslash")
		return
	}
	if len(domain) >= maxWindowsDomain {
		reject(fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxWindowsDomain))
	}
	if hasDomain && !netBIOSDomain.MatchString(domain) && !dnsDomain.MatchString(domain) {
		reject("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	switch {
	case user == "":
		reject("runAsUserName's User cannot be empty")
	case len(user) > maxWindowsUser:
		reject(fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxWindowsUser))
	case windowsUserDots.MatchString(user):
		reject("runAsUserName's User cannot contain only periods or spaces")
	case windowsUserInvalid.MatchString(user):
		reject(`runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
}
