-- run_accept: how a run begins: once, in the place of one of the same source that is still open.

local function is_open(run)
  local status = get('status', run)
  return status ~= '' and not TERMINAL[status]
end

local function open_run() -- another of the same source, if it is open
  local other = get(f.source, KEYS[4])
  return other ~= '' and other ~= RUN_ID and is_open(RUN_PREFIX .. other) and RUN_PREFIX .. other
end

local function await(id) -- the run is not complete before that task has succeeded
  if get('final:' .. id) == '' then
    set('final:' .. id, '1')
    add('finals', 1)
  end
end

local function await_all()
  for id in string.gmatch(f.finals or (f.final ~= '*' and f.final or f.task), '[^\n]+') do
    if get('task:' .. id) == '' then await(id) end
  end
end

local function plan() -- the stages that are known by now, as lines of weight, number of tasks, name
  for weight, parts, stage in string.gmatch(f.stages or '', '(%S+) (%S+) ([^\n]+)\n') do
    set('stages', get('stages') .. weight .. ' ' .. stage .. '\n', 'parts:' .. stage, parts,
      'unit:' .. stage, f.unit)
    set('planned', '1')
  end
end

local function forget_old_sources()
  local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now - STATE_TTL_MS), 'LIMIT', 0, 100)
  for _, source in ipairs(expired) do
    if redis.call('EXISTS', RUN_PREFIX .. get(source, KEYS[4])) == 0 then
      redis.call('ZREM', KEYS[3], source)
      redis.call('HDEL', KEYS[4], source)
    end
  end
end

local function create()
  local other = open_run()
  cursor = last_id(to.stream)
  to.last = cursor
  set('source', f.source, 'head', f.head, 'name', f.name, 'status', 'queued', 'attempt', '0',
    'percent', '0', 'cursor', cursor, 'accepted_ms', int(now), 'stages', '')
  if other then
    cancel('superseded', other)
    retire(other)
  end
  redis.call('HSET', KEYS[4], f.source, RUN_ID)
  redis.call('ZADD', KEYS[3], int(now), f.source)
  forget_old_sources()
  await_all()
  emit('queued', ',"percent":0')
end

local function expect(id, eta_ms) -- its message is on the way
  local task = load_task(id)
  if task.phase ~= 'new' then return end
  task.phase, task.deadline = 'open', when_due(eta_ms)
  save_task(task)
end

local function repeat_state() -- for somebody who asked again, and waits for a word
  local status, percent = get('status'), ',"percent":' .. int(num('percent'))
  local extra = percent
  if status == 'running' then
    status = get('stage') == '' and 'started' or 'progress'
    if status == 'progress' then extra = shown() end
  elseif status == 'retrying' then
    extra = percent .. ',"attempts":' .. get('attempts') .. ',"eta":' .. get('eta') .. ',"error":' .. get('error')
  elseif status == 'stalled' then
    extra = percent .. ',"reason":' .. get('reason')
  elseif TERMINAL[status] then
    extra = percent .. ',"seconds":' .. get('seconds')
    if status == 'cancelled' then extra = extra .. ',"reason":' .. get('reason') end
    if status == 'failed' then extra = extra .. ',"error":' .. get('error') end
    local result = get('result')
    if #result > 2 then extra = extra .. ',' .. string.sub(result, 2, -2) end
  end
  emit(status, extra .. ',"repeated":true')
end

local function accept()
  local status = get('status')
  if status == '' then
    if f.exclusive == '1' and open_run() then return 'running' end
    create()
    plan()
    if f.task ~= '' then expect(f.task, f.eta_ms) end
    return 'ok'
  end
  if not TERMINAL[status] then
    await_all()
    if f.task ~= '' then expect(f.task, f.eta_ms) end
  end
  if f.repeat_state == '1' then repeat_state() end
  cursor = get('cursor')
  return 'duplicate'
end
