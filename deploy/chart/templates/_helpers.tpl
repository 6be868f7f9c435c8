{{/* A file of files/, in the release's namespace. */}}
{{- define "tka.file" -}}
{{- .root.Files.Get (printf "files/%s" .name) | replace "namespace: tka-system" (printf "namespace: %s" .root.Release.Namespace) -}}
{{- end }}

{{- define "tka.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end }}

{{- define "tka.labels" -}}
app.kubernetes.io/name: tka
app.kubernetes.io/component: tka-server
{{- end }}

{{/* The server's configuration: values.tka, and where the cluster's own information is read when it is not given. */}}
{{- define "tka.config" -}}
{{- $config := deepCopy .Values.tka -}}
{{- $info := get $config "clusterInfo" | default dict -}}
{{- if and (not (get $info "apiEndpoint")) (not (hasKey $info "configMapRef")) -}}
{{- $_ := set $info "configMapRef" (dict "enabled" true) -}}
{{- end -}}
{{- $_ := set $config "clusterInfo" $info -}}
{{- toYaml $config -}}
{{- end }}
