{{/* A pod's spec; takes the root, the model, and whether the pod serves or only computes for one that does. */}}
{{- define "sensefield.pod" -}}
{{- $root := .root }}
{{- $nodes := int (.model.nodes | default 1) }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add $root.Values.drainSeconds 20 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .model.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .model.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .model.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: sensefield
    image: "{{ $root.Values.image.repository }}:{{ $root.Values.image.tag }}"
    imagePullPolicy: {{ $root.Values.image.pullPolicy | default "IfNotPresent" }}
    args:
      {{- with .model.model }}
      - {{ . | quote }}
      {{- end }}
      - --served-model-name={{ .model.name }}
      - --shutdown-timeout={{ $root.Values.drainSeconds }}
      {{- range .model.args }}
      - {{ . | quote }}
      {{- end }}
      {{- if gt $nodes 1 }}
      - --nnodes={{ $nodes }}
      - --node-rank=$(NODE_RANK)
      - --master-addr=$(LWS_LEADER_ADDRESS)
      {{- if not .serves }}
      - --headless
      {{- end }}
      {{- end }}
    env:
      {{- if gt $nodes 1 }}
      - name: NODE_RANK
        valueFrom:
          fieldRef: {fieldPath: "metadata.labels['leaderworkerset.sigs.k8s.io/worker-index']"}
      {{- end }}
      {{- with $root.Values.vectors.url }}
      - {name: SENSEFIELD_VECTORS_DIR, value: {{ . | quote }}}
      {{- end }}
      {{- with $root.Values.secrets.apiKeys }}
      - name: SENSEFIELD_API_KEYS
        valueFrom:
          secretKeyRef: {name: {{ . }}, key: keys}
      - name: READY_KEY
        valueFrom:
          secretKeyRef: {name: {{ . }}, key: metricsKey}
      {{- end }}
      {{- with $root.Values.secrets.huggingFace }}
      - name: HF_TOKEN
        valueFrom:
          secretKeyRef: {name: {{ . }}, key: token}
      {{- end }}
      - {name: HF_HOME, value: /models}
    {{- with $root.Values.vectors.secret }}
    envFrom:
      - secretRef: {name: {{ . }}}
    {{- end }}
    {{- if .serves }}
    ports:
      - {name: http, containerPort: 8000}
    lifecycle:
      # SIGTERM refuses newcomers: it comes once the Service has had time to send them elsewhere.
      preStop:
        exec: {command: [sleep, "5"]}
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    {{- if .serves }}
    # Loading takes as long as it takes; after it, /health tells a dead engine and /ready one
    # that cannot take requests now.
    startupProbe:
      httpGet: {path: /health, port: http}
      periodSeconds: 5
      failureThreshold: {{ div (.model.startupSeconds | default 1800) 5 }}
    livenessProbe:
      httpGet: {path: /health, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      {{- if $root.Values.secrets.apiKeys }}
      # Where there are keys, /ready asks for one, which only the container knows.
      exec: {command: [sensefield-ready]}
      {{- else }}
      httpGet: {path: /ready, port: http}
      {{- end }}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 2
    {{- end }}
    {{- $resources := deepCopy (.model.resources | default dict) }}
    {{- if .model.gpus }}
    {{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" .model.gpus) ($resources.limits | default dict)) }}
    {{- end }}
    resources:
      {{- toYaml $resources | nindent 6 }}
    volumeMounts:
      - {name: shm, mountPath: /dev/shm}
      - {name: tmp, mountPath: /tmp}
      - {name: data, mountPath: /data}
      - {name: models, mountPath: /models}
      {{- if $root.Values.vectors.existingClaim }}
      - {name: vectors, mountPath: /data/sensefield/vectors}
      {{- end }}
volumes:
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ .model.shmSize | default "2Gi" }}}
  - {name: tmp, emptyDir: {}}
  - {name: data, emptyDir: {}}
  {{- with $root.Values.modelCache.existingClaim }}
  - {name: models, persistentVolumeClaim: {claimName: {{ . }}}}
  {{- else }}
  - {name: models, emptyDir: {}}
  {{- end }}
  {{- with $root.Values.vectors.existingClaim }}
  - {name: vectors, persistentVolumeClaim: {claimName: {{ . }}}}
  {{- end }}
{{- end }}
