{{/* Labels that select one model's pods; takes the root and the model. */}}
{{- define "sensefield.labels" -}}
app.kubernetes.io/name: sensefield
app.kubernetes.io/instance: {{ .root.Release.Name }}
sensefield/model: {{ .model.name }}
{{- end }}
