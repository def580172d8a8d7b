{{/* The settings of the operator: each is a variable of operator/kapsel_operator/settings.py, and a test compares both. */}}
{{- define "kapsel.env" -}}
{{- $settings := dict
  "KAPSEL_HEALTH_HOST" .Values.operator.listenHost
  "KAPSEL_HEALTH_PORT" "9090"
  "KAPSEL_LOG_LEVEL" .Values.operator.logLevel
  "KAPSEL_DRAIN_TIMEOUT" .Values.operator.drainTimeout
  "KAPSEL_OPERATOR_LEASE" (default (include "kapsel.fullname" .) .Values.operator.lease)
  "KAPSEL_OPERATOR_WATCH_NAMESPACES" (join "," .Values.watchNamespaces)
  "KAPSEL_OPERATOR_IMAGE_REPOSITORY" .Values.image.repository
  "KAPSEL_OPERATOR_IMAGE_PULL_POLICY" .Values.image.pullPolicy
  "KAPSEL_OPERATOR_VERSION" (include "kapsel.tag" .)
  "KAPSEL_OPERATOR_WORKERS" .Values.operator.workers
  "KAPSEL_OPERATOR_RESYNC_INTERVAL" .Values.operator.resyncInterval
  "KAPSEL_OPERATOR_AUDIT_INTERVAL" .Values.operator.auditInterval
  "KAPSEL_OPERATOR_SECRETS_INTERVAL" .Values.operator.secretsInterval
  "KAPSEL_OPERATOR_STATUS_INTERVAL" .Values.operator.statusInterval
  "KAPSEL_OPERATOR_CLUSTER_DOMAIN" .Values.operator.clusterDomain -}}
{{- $secrets := list -}}
{{- range .Values.imagePullSecrets }}{{- $secrets = append $secrets .name }}{{- end -}}
{{- $_ := set $settings "KAPSEL_OPERATOR_IMAGE_PULL_SECRETS" (join "," $secrets) -}}
{{- range $name, $value := $settings }}
{{- if ne (toString $value) "" }}
- name: {{ $name }}
  value: {{ toString $value | quote }}
{{- end }}
{{- end }}
{{- end -}}
