-- How healthy Argo CD shows a resource of kapsel, for all kinds: resource.customizations of argocd-cm, "kapsel.dev/*".
--
-- It reads `Ready` and `Stalled`, and `Complete` and `Failed` of a Replay. `Delivering` is left out on purpose: that a
-- destination of somebody else's does not answer must not make an application degraded.

local function found(status, message)
  return { status = status, message = message or "" }
end

if obj.metadata.deletionTimestamp ~= nil then
  return found("Progressing", "It is being deleted")
end

local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function is(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

local function words(kind)
  local condition = conditions[kind]
  if condition.message == nil or condition.message == "" then
    return condition.reason
  end
  return condition.reason .. ": " .. condition.message
end

if is("Paused") then
  return found("Suspended", "The annotation kapsel.dev/reconcile says disabled")
end

if next(conditions) == nil then
  return found("Progressing", "No operator has looked at it yet")
end

if obj.status.observedGeneration ~= obj.metadata.generation then
  return found("Progressing", "The operator has not seen the newest version yet")
end

if is("Stalled") then
  return found("Degraded", words("Stalled"))
end

-- The attestors' own: what is stored and what was signed do not agree, and nothing is signed until a person acts.
if conditions.LogConsistent ~= nil and conditions.LogConsistent.status == "False" then
  return found("Degraded", words("LogConsistent"))
end

if obj.kind == "Replay" then
  if is("Failed") then
    return found("Degraded", words("Failed"))
  end
  if is("Complete") then
    return found("Healthy", words("Complete"))
  end
  if is("Suspended") then
    return found("Suspended", words("Suspended"))
  end
  if conditions.Complete ~= nil then
    return found("Progressing", words("Complete"))
  end
end

if conditions.Ready == nil then
  return found("Progressing", "The operator has not said whether it is Ready")
end

if is("Ready") and obj.kind ~= "Replay" then
  return found("Healthy", words("Ready"))
end

return found("Progressing", words("Ready"))
