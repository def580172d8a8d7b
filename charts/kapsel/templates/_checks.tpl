{{/*
What a schema cannot say: values that are each fine and make no sense together. Included by the Deployment, which is always
rendered, so that a mistake ends `helm install` with one sentence.
*/}}
{{- define "kapsel.checks" -}}
{{- $v := .Values -}}
{{- if and $v.serviceMonitor.enabled (not $v.metrics.service.enabled) -}}
{{- fail "serviceMonitor.enabled needs metrics.service.enabled: a ServiceMonitor finds the operator through its Service. Set metrics.service.enabled=true" -}}
{{- end -}}
{{- $budget := $v.podDisruptionBudget -}}
{{- if and (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- fail "podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable exclude each other: set one of them" -}}
{{- end -}}
{{- if le (int $v.terminationGracePeriodSeconds) (int $v.operator.drainTimeout) -}}
{{- fail (printf "terminationGracePeriodSeconds (%d) must be more than operator.drainTimeout (%d): a pod that is killed while it drains leaves work half done" (int $v.terminationGracePeriodSeconds) (int $v.operator.drainTimeout)) -}}
{{- end -}}
{{- if gt (len (last (splitList "/" $v.smoke.relay))) 49 -}}
{{- fail "smoke.relay: the names of this Relay's objects are shortened, and the test cannot know how. Test another Relay" -}}
{{- end -}}
{{- if and $v.smoke.enabled $v.smoke.relay $v.watchNamespaces -}}
{{- if not (has (include "kapsel.smokeNamespace" .) $v.watchNamespaces) -}}
{{- fail (printf "smoke.relay is %s, and the operator does not watch that namespace: add it to watchNamespaces, or name another Relay" $v.smoke.relay) -}}
{{- end -}}
{{- end -}}
{{- end -}}
