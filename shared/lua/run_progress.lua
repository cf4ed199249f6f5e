-- run_progress: stages and shares become one bar, of which at most four states a second are shown.

local stages_read, stages_of = {}, ''
local function stages() -- {{stage, weight}, ...} in the order of their first mention
  local text = get('stages')
  if text ~= stages_of then
    stages_read, stages_of = {}, text
    for weight, stage in string.gmatch(text, '(%S+) ([^\n]+)\n') do
      stages_read[#stages_read + 1] = {stage, tonumber(weight)}
    end
  end
  return stages_read
end

local function mention(stage, weight) -- the weight of its first mention counts
  for _, known in ipairs(stages()) do
    if known[1] == stage then return end
  end
  set('stages', get('stages') .. weight .. ' ' .. stage .. '\n')
end

local function contribute(task, stage, share)
  local field = 'part:' .. task .. ':' .. stage
  local old = num(field)
  if share == old then return end
  set(field, int(share))
  add('sum:' .. stage, share - old)
  local finished = (share == MILLION and 1 or 0) - (old == MILLION and 1 or 0)
  if finished ~= 0 then add('finished:' .. stage, finished) end
end

local function forget_shares(task) -- a new attempt starts its stages again
  for _, stage in ipairs(stages()) do contribute(task, stage[1], 0) end
end

local function take_part(task, lines) -- in the stages of a plan: a task that succeeds has done them
  if lines == '' then lines = '1 "work"\n' end
  for stage in string.gmatch(lines, '%S+ ([^\n]+)\n') do
    local part = 'part:' .. task .. ':' .. stage
    if num('parts:' .. stage) > 0 and get(part) == '' then set(part, '0') end
  end
end

local function report(task, stage, parts, done, total, unit, complete, weight, note)
  if note ~= '' then set('note', note == 'null' and '' or note) end
  if stage == '' then return end
  mention(stage, weight)
  if note == '' and get('stage') ~= stage then set('note', '') end -- it was of the stage before
  set('stage', stage)
  if parts ~= '' then
    set('parts:' .. stage, parts, 'unit:' .. stage, unit)
  else
    local share = complete == '1' and MILLION or 0
    if share == 0 and (tonumber(total) or 0) > 0 then
      -- Whole only when it is said to be complete: its last item may not be stored yet.
      share = math.min(MILLION - 1, math.floor(tonumber(done) / tonumber(total) * MILLION))
    end
    contribute(task, stage, share)
  end
  local of = num('parts:' .. stage)
  if of > 1 then
    set('done', int(math.min(of, num('finished:' .. stage))), 'total', int(of), 'unit', get('unit:' .. stage))
  elseif parts == '' then
    set('done', done, 'total', total, 'unit', unit)
  else
    set('done', '0', 'total', parts, 'unit', unit)
  end
end

local function recount() -- the overall percent: stages by weight, never down within an attempt
  local sum, weights = 0, 0
  for _, stage in ipairs(stages()) do
    local of = math.max(1, num('parts:' .. stage[1]))
    sum = sum + stage[2] * math.min(1, num('sum:' .. stage[1]) / (MILLION * of))
    weights = weights + stage[2]
  end
  local percent = weights > 0 and math.floor(100 * sum / weights + 1e-6) or 0
  set('percent', int(math.max(num('percent'), math.min(99, percent))))
end

local function shown()
  local function or_null(field)
    local value = get(field)
    return value == '' and 'null' or value
  end
  return ',"stage":' .. or_null('stage') .. ',"done":' .. or_null('done') .. ',"total":'
    .. or_null('total') .. ',"unit":' .. or_null('unit') .. ',"note":' .. or_null('note')
    .. ',"percent":' .. int(num('percent'))
end

local function show(at_once) -- emits progress if something visible changed and its time has come
  local text = shown()
  if not at_once and (get('shown') == text or get('stage') .. get('note') == '') then
    set('dirty', '')
    return -1
  end
  local due = num('progress_ms') + PROGRESS_EVERY_MS - now
  if due > 0 and not at_once then
    set('dirty', '1')
    return due
  end
  set('shown', text, 'dirty', '', 'progress_ms', int(now))
  emit('progress', text)
  return -1
end
