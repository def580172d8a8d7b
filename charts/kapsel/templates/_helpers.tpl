{{/* What several templates need. */}}

{{- define "kapsel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut to 52 characters, so that the suffixes of all names below still fit into 63. */}}
{{- define "kapsel.fullname" -}}
{{- $name := include "kapsel.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide names carry the namespace: two releases of one name may be in two namespaces. */}}
{{- define "kapsel.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "kapsel.fullname" .) -}}
{{- end -}}

{{- define "kapsel.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kapsel.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kapsel.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{- define "kapsel.image" -}}
{{- printf "%s:%s" .Values.image.repository (include "kapsel.tag" .) -}}
{{- end -}}

{{/* The name does not follow nameOverride: by it, the policy of an embedded Postgres knows the operator. */}}
{{- define "kapsel.selectorLabels" -}}
app.kubernetes.io/name: kapsel
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object; the component is the operator unless a template says otherwise. */}}
{{- define "kapsel.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" "kapsel"
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/component" "operator"
  "app.kubernetes.io/part-of" "kapsel"
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/version" (include "kapsel.tag" . | trunc 63 | trimAll "-_.")
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_.") -}}
{{- toYaml (merge $own .Values.commonLabels) -}}
{{- end -}}

{{/* metadata.labels and metadata.annotations: (list $ labels annotations), the last two from the values of one object. */}}
{{- define "kapsel.metadata" -}}
{{- $top := index . 0 -}}
{{- $labels := merge (include "kapsel.labels" $top | fromYaml) (index . 1) -}}
{{- $annotations := merge (deepCopy (index . 2)) $top.Values.commonAnnotations -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The namespace in which the smoke test works: where its Relay is, or where it may make one. */}}
{{- define "kapsel.smokeNamespace" -}}
{{- if .Values.smoke.relay -}}
{{- index (splitList "/" .Values.smoke.relay) 0 -}}
{{- else if .Values.watchNamespaces -}}
{{- has .Release.Namespace .Values.watchNamespaces | ternary .Release.Namespace (first .Values.watchNamespaces) -}}
{{- else -}}
{{- .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* Short enough for the longest suffix of a Relay's objects, -console-token. */}}
{{- define "kapsel.smokeName" -}}
{{- printf "%s-smoke" (include "kapsel.fullname" . | trunc 40 | trimSuffix "-") -}}
{{- end -}}
