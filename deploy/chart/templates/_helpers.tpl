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

{{/* The server's configuration. */}}
{{- define "tka.config" -}}
{{- toYaml .Values.tka -}}
{{- end }}
