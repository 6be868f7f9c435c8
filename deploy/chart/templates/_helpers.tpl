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

{{/* A list of a pod, and what a strategic merge patch adds to it or removes from it. */}}
{{- define "tka.merged" -}}
{{- $merged := list -}}
{{- $gone := dict -}}
{{- range .more -}}
{{- if hasKey . "$patch" -}}{{- $_ := set $gone (.mountPath | default .name) true -}}{{- else -}}{{- $merged = append $merged . -}}{{- end -}}
{{- end -}}
{{- range .base -}}
{{- if not (hasKey $gone (.mountPath | default .name)) -}}{{- $merged = append $merged . -}}{{- end -}}
{{- end -}}
{{- toYaml $merged -}}
{{- end }}
