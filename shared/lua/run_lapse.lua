-- run_lapse: deadlines that passed. A mode says what to do where nothing can come again:
--   show   tell the user that nothing is heard
--   ask    name the tasks, so that the result backend is asked what became of them
--   fail   end the run

local next_ms = -1

local function give_up(task)
  local error = get('error:' .. task.id)
  if is_spent(task) and task.executions > 1 then
    fail_with('poison', 'This source made its worker crash again and again.')
  elseif error ~= '' then
    fail(error)
  elseif task.rank == 2 and task.nonce == '-' then
    fail_with('chain_broken', 'A later step of this source never ran. Please try again.', true)
  elseif task.rank == 2 then
    fail_with('worker_lost', 'Processing stopped unexpectedly. Please try again.', true)
  else
    fail_with('never_started', 'This source waited too long and was not processed.', true)
  end
end

local function lapse(task)
  if is_alive(task) and task.late == 1 and not is_spent(task) then
    suspect(task, 'worker_lost', task.grace)
  elseif f.mode == 'fail' then
    give_up(task)
  elseif f.mode == 'ask' then
    names[#names + 1] = task.id
  elseif num('alive') == (is_alive(task) and 1 or 0) then
    stall('worker_lost')
  end
end

local function lapse_idle() -- nothing is on the way, but something is missing
  if f.mode == 'fail' then
    fail_with('chain_broken', 'A later step of this source never ran. Please try again.', true)
  elseif f.mode == 'ask' then
    for _, field in ipairs(redis.call('HKEYS', KEY_RUN)) do
      names[#names + 1] = string.match(field, '^final:(.+)$')
    end
  end
end

local function look_again(ms)
  if next_ms < 0 or ms < next_ms then next_ms = ms end
end

local function lapse_all()
  each_task(function(task)
    if ended == '' and task.phase == 'open' and task.deadline <= now then lapse(task) end
    if task.phase == 'open' then look_again(task.deadline) end
  end)
  local idle = num('idle')
  if ended == '' and idle > 0 then
    if idle <= now then lapse_idle() end
    look_again(idle)
  end
  return 'ok'
end
